// Package console is the web console of Outlast, as an [http.Handler]: for a service's
// own mux, and for the program ("outlast console"). It shows what the databases that it
// is given know of messages, and lets people act on what waits or failed.
//
// Pages are rendered on the server and work without the script; everything is embedded.
// All links are relative, so that the handler works below any path that ends in "/".
// It needs no connection to a broker: everything is read from the databases.
package console
