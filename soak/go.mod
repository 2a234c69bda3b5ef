module github.com/strictws/websocket/soak

go 1.26

replace github.com/strictws/websocket => ../

require (
	github.com/stretchr/testify v1.12.1
	github.com/strictws/websocket v0.0.0-00010101000000-000000000000
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
