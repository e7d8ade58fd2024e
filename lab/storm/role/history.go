package role

import "github.com/outlastmq/outlast"

// hooks records what this process does.
func (s Spec) hooks() []outlast.Hook { return nil }
