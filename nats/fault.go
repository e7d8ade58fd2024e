package nats

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/outlastmq/outlast"
)

// Codes of the server that the client library does not name.
const (
	errStreamOverlap     = 10065
	errConsumerInvalid   = 10149 // no such consumer to update
	errInsufficient      = 10023
	errAccountResources  = 10002
	errMessageTooLarge   = 10054
	errStreamStoreFailed = 10077
	errStreamSealed      = 10109
)

// apiError is the server's answer to a request that it did not fulfil.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

func (e *apiError) kind() outlast.Code {
	switch jetstream.ErrorCode(e.ErrCode) {
	case jetstream.JSErrCodeStreamNotFound, jetstream.JSErrCodeConsumerNotFound, jetstream.JSErrCodeMessageNotFound, errConsumerInvalid:
		return outlast.CodeNotFound
	case jetstream.JSErrCodeStreamNameInUse, jetstream.JSErrCodeConsumerAlreadyExists, jetstream.JSErrCodeConsumerExists, errStreamOverlap:
		return outlast.CodeConflict
	case errInsufficient, errAccountResources:
		return outlast.CodeUnavailable
	}
	switch e.Code {
	case 401, 403:
		return outlast.CodeDenied
	case 503:
		return outlast.CodeUnavailable
	}
	return outlast.CodeRefused
}

// fault makes the one error type, with every secret taken out of the text.
func (b *broker) fault(op string, code outlast.Code, err error) *outlast.Error {
	text := err.Error()
	for _, s := range b.secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	if text != err.Error() {
		err = errors.New(text)
	}
	return &outlast.Error{Op: op, Code: code, Err: err}
}

func connectCode(err error) outlast.Code {
	for _, e := range []error{client.ErrAuthorization, client.ErrAuthExpired, client.ErrAuthRevoked, client.ErrAccountAuthExpired} {
		if errors.Is(err, e) {
			return outlast.CodeDenied
		}
	}
	if strings.Contains(strings.ToLower(err.Error()), "authorization violation") {
		return outlast.CodeDenied
	}
	return outlast.CodeUnavailable
}

// connectHint says what a person can do about a connection that was not made.
func connectHint(code outlast.Code, err error) string {
	switch {
	case code == outlast.CodeDenied:
		return "check the user and the password, the token or the credentials file of the address"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: check that the server runs, and the port"
	}
	return ""
}

// deniedSubject reads the subject of a permissions violation on publish.
func deniedSubject(err error) (string, bool) {
	if !errors.Is(err, client.ErrPermissionViolation) {
		return "", false
	}
	const mark = `publish to "`
	text := err.Error()
	i := strings.Index(strings.ToLower(text), mark)
	if i < 0 {
		return "", false
	}
	subject, _, ok := strings.Cut(text[i+len(mark):], `"`)
	return subject, ok
}
