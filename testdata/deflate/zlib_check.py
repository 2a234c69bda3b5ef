"""Lets zlib judge our DEFLATE data, and make some for us to judge.

Each line of the input is a command:

    inflate BITS TAKEOVER PAYLOAD...         the messages of these payloads
    deflate BITS LEVEL TAKEOVER MESSAGE...   the payloads of these messages

BITS is that of the window, TAKEOVER is 0 or 1, payloads and messages are in hex, "-" for
none. The answer is a line of hex words, or "error" and what is wrong.

With --vectors it writes zlib.txt.
"""

import random
import sys
import zlib

TAIL = b"\x00\x00\xff\xff"


def unhex(word):
    return b"" if word == "-" else bytes.fromhex(word)


def enhex(data):
    return data.hex() or "-"


def inflate(bits, takeover, payloads):
    messages = []
    stream = None
    for payload in payloads:
        if stream is None or not takeover:
            stream = zlib.decompressobj(-bits)
        # Byte by byte: zlib does not look whether a distance is in the window as long as it
        # is in the output of the same call.
        message = bytearray()
        rest = payload + TAIL
        while True:
            out = stream.decompress(rest, 1)
            rest = stream.unconsumed_tail
            message += out
            if not out and not rest:
                break
        if stream.eof or stream.unused_data:
            raise ValueError("the stream has ended")
        messages.append(bytes(message))
    return messages


def deflate(bits, level, takeover, messages):
    payloads = []
    stream = None
    for message in messages:
        if stream is None or not takeover:
            stream = zlib.compressobj(level, zlib.DEFLATED, -bits)
        payload = stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH)
        # zlib has nothing to add to a flush that another flush follows.
        payload = payload or b"\x00" + TAIL
        if not payload.endswith(TAIL):
            raise ValueError("not flushed")
        payloads.append(payload[: -len(TAIL)])
    return payloads


def answer(line):
    command, *words = line.split()
    if command == "inflate":
        bits, takeover, *words = words
        return inflate(int(bits), takeover == "1", map(unhex, words))
    if command == "deflate":
        bits, level, takeover, *words = words
        return deflate(int(bits), int(level), takeover == "1", map(unhex, words))
    raise ValueError("no such command: " + command)


def vectors():
    rnd = random.Random(7692)
    print("# Written by zlib_check.py --vectors: the window bits, whether the messages share a")
    print("# context, and the payloads of zlib", zlib.ZLIB_RUNTIME_VERSION, "in hex, each with its message in hex.")
    for takeover in (True, False):
        for bits in range(9, 16):
            for level in (1, 6):
                words = ['"price":', '"size":', "0123", "true,", "Hello ", "\u00fc"]
                messages = [
                    "".join(rnd.choice(words) for _ in range(n)).encode() for n in (3, 30, 60, 0, 10)
                ]
                messages.append(messages[1][:50])
                payloads = deflate(bits, level, takeover, messages)
                pairs = (enhex(p) + "=" + m.hex() for p, m in zip(payloads, messages))
                print(bits, "takeover" if takeover else "no-takeover", *pairs)


def main():
    if sys.argv[1:] == ["--vectors"]:
        vectors()
        return
    for line in sys.stdin:
        try:
            print(*map(enhex, answer(line)))
        except (ValueError, zlib.error) as e:
            print("error", e)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
