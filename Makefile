# Every target loops over the modules on their own terms: go.work is for editors, and what
# a user gets is what each go.mod says.
export GOWORK := off
# A checkout that belongs to somebody else cannot be asked for its revision.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

GO      ?= go
MODULES := . embedded prometheus cmd/outlast examples lab

# Flags of the lab's tests, which run real servers: make test LABFLAGS='-run TestRabbitMQ'. Programs and
# documents that they look at are outside of their module, so that no result may come from the cache.
LABFLAGS   ?= -race -count=1 -timeout 20m
TESTFLAGS  ?= -race -timeout 20m

# each runs a command in every module, goes on after a failure, and fails in the end.
each = status=0; for module in $(1); do (cd "$$module" && $(2)) || status=1; done; exit $$status

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Run the demo; needs nothing but Go. STAY=1 keeps the shop and its console afterwards
	@echo 'Building the program: the first time takes about a minute.'
	@cd cmd/outlast && $(GO) run . demo --console 127.0.0.1:0$(if $(STAY), --stay)

.PHONY: build
build: ## Build the program as bin/outlast
	cd cmd/outlast && $(GO) build -o ../../bin/outlast .

.PHONY: test
test: ## Run all tests, with real servers; installs them where it may
	@lab/install run $(MAKE) --no-print-directory test-modules

.PHONY: test-modules
test-modules:
	@$(call each,$(MODULES),if [ "$$module" = lab ]; then flags='$(LABFLAGS)'; else flags='$(TESTFLAGS)'; fi; \
		$(GO) test $$flags ./...)

.PHONY: lint
lint: lint-format lint-text lint-modules lint-vet lint-static ## Check format, text, modules, go vet and staticcheck

.PHONY: lint-format
lint-format:
	@unformatted=$$(gofmt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi

# The paths are of machines that the project is developed on: no file may depend on them.
.PHONY: lint-text
lint-text:
	@found() { git grep --no-index --exclude-standard -nIE "$$@"; status=$$?; [ $$status -le 1 ] || exit $$status; return $$status; }; \
	if found '[[:blank:]]+$$' -- . ':!LICENSE' ':!*.golden'; then echo 'trailing white space'; exit 1; fi; \
	if found '(^|[^[:alnum:]._-])/(work|tmp/helper)/' -- .; then echo 'path of one machine'; exit 1; fi

.PHONY: lint-modules
lint-modules:
	@$(call each,$(MODULES),$(GO) mod tidy -diff)

.PHONY: lint-vet
lint-vet:
	@$(call each,$(MODULES),$(GO) vet ./...)

.PHONY: lint-static
lint-static:
	@cd lab && $(GO) build -o ../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	@$(call each,$(MODULES),"$(CURDIR)/bin/staticcheck" ./...)

# Results besides the printed tables: bin/bench.json, bin/bench.md, bin/bench.svg. Single parts:
# make bench BENCH='relay keys', and flags: make bench BENCH='relay --rounds 3'.
BENCH ?=

.PHONY: bench
bench: ## Measure against other outboxes on real servers, about 15 minutes; BENCH=list shows the parts
	@lab/install
	@mkdir -p bin
	cd lab && $(GO) run ./bench $(BENCH) --json ../bin/bench.json --markdown ../bin/bench.md --svg ../bin/bench.svg

.PHONY: bench-flat
bench-flat: ## Ten million rows, an old snapshot, 1 to 8 relays, 1 to 1000 queues: about 35 minutes
	@lab/install
	@mkdir -p bin
	cd lab && $(GO) run ./bench flat --rows 10000000 --json ../bin/bench-flat.json --markdown ../bin/bench-flat.md --svg ../bin/bench-flat.svg

.PHONY: bench-steady
bench-steady: ## A steady load, period by period; FOR=45m; HELD=1 under a transaction that stays open, FOR=10m
	@lab/install
	@mkdir -p bin
	cd lab && $(GO) run ./bench $(if $(HELD),held --for $(or $(FOR),10m),steady --for $(or $(FOR),45m)) --json ../bin/bench-steady.json --markdown ../bin/bench-steady.md --svg ../bin/bench-steady.svg

# Times compare only on one and the same quiet machine; bytes and allocations compare everywhere.
MICRO     := . ./postgres ./rabbitmq
MICROFILE := lab/bench/testdata/micro.txt

.PHONY: bench-micro
bench-micro: ## Benchmarks of the hot paths against those kept; KEEP=1 keeps the new ones
	@mkdir -p bin
	@rm -f bin/bench-micro.ok
	{ $(GO) test -run '^$$' -bench . -benchtime 300ms -count 6 $(MICRO) && touch bin/bench-micro.ok; } | tee bin/bench-micro.txt
	@test -e bin/bench-micro.ok || { echo 'a benchmark failed: nothing is compared and nothing kept' >&2; exit 1; }
	@cd lab && $(GO) tool benchstat -ignore cpu kept=../$(MICROFILE) now=../bin/bench-micro.txt
	@kept=$$(grep -m1 '^cpu:' $(MICROFILE)); now=$$(grep -m1 '^cpu:' bin/bench-micro.txt); \
	if [ "$$kept" != "$$now" ]; then echo "kept on $${kept#cpu: }, now on $${now#cpu: }: compare bytes and allocations, not times"; fi
	@if [ -n "$(KEEP)" ]; then cp bin/bench-micro.txt $(MICROFILE); fi

# A storm: see lab/storm. SEED repeats the faults of a run, RUNS makes a series that goes on where it was
# interrupted, APPEND=1 writes each run into docs/proof/chaos.md, SKEW=1 lets the clocks of our processes jump.
STORM = $(GO) run ./storm/cmd $(if $(SEED),-seed $(SEED)) $(if $(SKEW),-skew) -folder ../.storm/runs

.PHONY: chaos
chaos: ## Storms of faults from a seed on a whole system, about 5 minutes each: SEED=n RUNS=n FOR=3m APPEND=1
	@lab/install
	cd lab && $(STORM) -for $(or $(FOR),3m) -runs $(or $(RUNS),1) $(if $(APPEND),-append ../docs/proof/chaos.md)

.PHONY: soak
soak: ## A long storm with many messages, in legs; goes on where it stopped: FOR=2h MESSAGES=1000000 LEGS=4
	@lab/install
	cd lab && $(STORM) -for $(or $(FOR),2h) -messages $(or $(MESSAGES),1000000) -legs $(or $(LEGS),4) -batch 16 -pause 10s -without-history -soak ../docs/proof/soak.md

# make fuzz FOR=1m runs each target for a minute; make fuzz EXECS=10000000 runs each until it has that
# many executions in all, and goes on where an earlier run was stopped. ONLY=rabbitmq chooses targets.
.PHONY: fuzz
fuzz: ## Fuzz everything that parses what others wrote: FOR=1m or EXECS=10000000
	cd lab && $(GO) run ./fuzz $(if $(FOR),-for $(FOR)) $(if $(EXECS),-execs $(EXECS)) $(if $(ONLY),-only '$(ONLY)')

# For the pages of proofs that are written by hand: docs/model.md and docs/proof/generations.md begin with it.
MADE = echo "Made on $$(date -u +%F), of commit $$(git describe --always --dirty --exclude '*')."

.PHONY: model
model: ## Explore the protocol's model as far as it goes, and follow real relays and consumers for longer
	@$(MADE)
	cd lab && OUTLAST_TEST_MODEL=1 $(GO) test -count=1 -v -timeout 2h ./model

.PHONY: test-matrix
test-matrix: ## Run the lab's tests against other generations of PostgreSQL and RabbitMQ: GENERATIONS='trixie sid'
	@lab/install
	@$(MADE)
	lab/matrix $(GENERATIONS)

.PHONY: prove
prove: ## The long proofs: a million rows, an outage of a minute, a hundred rounds of kills
	@lab/install
	cd lab && OUTLAST_TEST_BACKLOG=1000000 $(GO) test -run 'TestF31_MemoryStaysFlat' -count=1 -v -timeout 1h ./chain
	cd lab && OUTLAST_TEST_OUTAGE=60s $(GO) test -run 'TestDemo_on_real_servers_through_a_cut' -count=1 -v -timeout 1h ./demo
	cd lab && OUTLAST_TEST_OUTAGE=10m $(GO) test -run 'TestTruthBrokerDown' -count=1 -v -timeout 1h ./journey
	cd lab && OUTLAST_JOURNEY_MESSAGES=1000000 $(GO) test -run 'TestFindIsQuick|TestPagesOfManyMessages' -count=1 -v -timeout 1h ./journey
	cd lab && OUTLAST_TEST_ROUNDS=100 $(GO) test -run 'TestCrash' -count=1 -v -timeout 1h ./storm

.PHONY: failures
failures: ## Run the tests of the catalogue of failures and write docs/failures.md
	@lab/install run sh -c 'cd lab && $(GO) run ./catalogue run'

.PHONY: planted
planted: ## Prove the checker of histories: ten known bugs, each caught, and none without one
	@lab/install
	cd lab && OUTLAST_TEST_PLANTED=all OUTLAST_TEST_PLANTED_PAGE=$(CURDIR)/docs/proof/planted-bugs.md $(GO) test -count=1 -v -timeout 1h ./planted

# KEEP=1 writes the pictures of docs/console anew: look at them before you commit them.
# OUTLAST_TEST_AXE names the axe.min.js of axe-core where there is no npm to fetch it; none
# looks without it.
AXE  := $(or $(filter none,$(OUTLAST_TEST_AXE)),$(abspath $(or $(OUTLAST_TEST_AXE),bin/package/axe.min.js)))
KEPT := $(addsuffix -light,audit books collected edit failure failures find health message operations outbox queues timeline topology) \
	health-dark sequence-dark message-phone

.PHONY: console-test
console-test: ## Look at the console with a headless Chromium; KEEP=1 keeps pictures of every page
	@mkdir -p bin/console
	@if [ -z "$(OUTLAST_TEST_AXE)" ] && [ ! -e $(AXE) ] && command -v npm >/dev/null; then \
		cd bin && archive=$$(npm pack --silent axe-core@4.14.1) && tar xzf "$$archive" package/axe.min.js || true; fi
	cd lab && OUTLAST_TEST_BROWSER=1 OUTLAST_TEST_AXE=$(AXE) OUTLAST_TEST_SCREENSHOTS=$(CURDIR)/bin/console $(GO) test -count=1 -timeout 20m ./console
	@if [ -n "$(KEEP)" ]; then cp $(KEPT:%=bin/console/%.png) docs/console/; fi

.PHONY: fmt
fmt: ## Format all Go files
	gofmt -w .
