module github.com/outlastmq/outlast/cmd/outlast

go 1.26

require github.com/outlastmq/outlast v0.0.0

replace github.com/outlastmq/outlast => ../..
