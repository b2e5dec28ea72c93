# SPDX-License-Identifier: Apache-2.0
# Every verb of the project. `make` alone lists them.
SHELL := /bin/sh
PYTHON ?= python3
export PYTHON
# The tests wait for processes more than they work: two to a core.
WORKERS ?= 4
RUN := .venv/bin/python
export ORT_DISABLE_TELEMETRY := 1
export OPENCV_IO_MAX_IMAGE_PIXELS := 16777216

.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## the whole plant on this machine; PARTS=200 OUTAGE=30 RATE=4 BROKER=mosquitto IMAGES=dir MODEL=name
	@tools/setup requirements.txt
	@$(RUN) -m linewatch_plant.demo $(if $(PARTS),--parts $(PARTS)) $(if $(OUTAGE),--outage $(OUTAGE)) \
	  $(if $(RATE),--rate $(RATE)) $(if $(BROKER),--broker $(BROKER)) $(if $(IMAGES),--images "$(IMAGES)") \
	  $(if $(MODEL),--model $(MODEL)) $(if $(MODELS_DIR),--models-dir "$(MODELS_DIR)") \
	  $(if $(CONSOLE_PORT),--console-port $(CONSOLE_PORT)) $(if $(PILOT),--pilot)

.PHONY: test
test: setup ## unit, contract and integration tests, against real processes; WORKERS=0: one after the other; SEARCH=1: property tests with new examples
	SEARCH="$(SEARCH)" $(RUN) -m pytest -m "not faults and not containers and not benchmark" -n $(WORKERS) --dist loadfile $(ARGS)

.PHONY: check
check: setup lint types test faults ## all that CI runs: lint, types, drift, tests

.PHONY: lint
lint: setup ## ruff: rules and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

.PHONY: types
types: setup ## mypy, strict
	$(RUN) -m mypy runtime/linewatch_runtime services/*/linewatch_* cloud plant/linewatch_plant models/linewatch_models fleet/linewatch_fleet tools/linewatch_images tools/containers/absent.py

.PHONY: faults
faults: setup ## break things on purpose and count, into build/faults.json; LONG=1: the long forms, into build/faults-long.json
	@rm -f build/faults$(if $(LONG),-long).json
	LONG="$(LONG)" $(RUN) -m pytest -m faults tests/faults --durations=10 $(ARGS)

.PHONY: soak
soak: setup ## producer, broker and forwarder for two hours, the broker killed every five minutes; SOAK_SECONDS=600
	LONG=1 SOAK_SECONDS="$(SOAK_SECONDS)" $(RUN) -m pytest -m faults tests/faults/test_soak.py -s $(ARGS)

.PHONY: compose
compose: ## the same system in containers (needs Docker); prints the page's address and how to sign in
	@docker compose up --build --wait
	@passwords="$$(docker compose exec -T console cat /run/linewatch/sign-in)" && \
	  echo "$$passwords" | tools/containers/sign-in "http://127.0.0.1:$${LINEWATCH_CONSOLE_PORT:-8080}/"

.PHONY: images
images: setup ## the images and build/images.json: PLATFORMS=linux/amd64,linux/arm64 REGISTRY=host/prefix ONLY=inference
	@tools/containers/bases
	@PYTHONPATH=tools $(if $(PLATFORMS),PLATFORMS="$(PLATFORMS)") $(if $(filter-out undefined,$(origin REGISTRY)),REGISTRY="$(REGISTRY)") \
	  $(if $(ONLY),ONLY="$(ONLY)") $(RUN) -m linewatch_images

.PHONY: containers
containers: setup ## the images, the compose stack, promotion, and the lifecycle on a device; ENGINE=1 installs Docker on a root Debian
	@$(if $(ENGINE),tools/containers/engine)
	@if docker info >/dev/null 2>&1; then $(MAKE) --no-print-directory images recipes PLATFORMS=all; fi
	@$(RUN) -m pytest -m containers tests/containers tests/conformance fleet --durations=20 --durations-min=5 $(ARGS)

.PHONY: recipes
recipes: setup ## render and lint the recipes of the images just built, into build/recipes/; REGISTRY=host CAPTURES=2
	@.venv/bin/linewatch recipes render $(if $(REGISTRY),--registry "$(REGISTRY)") $(if $(CAPTURES),--captures "$(CAPTURES)")

.PHONY: rehearsal
rehearsal: setup ## a platform engineer's day without an AWS account: linewatch's verbs in order, after make images
	@$(RUN) -m linewatch_plant.rehearsal

.PHONY: evaluate
evaluate: setup ## metrics of a committed model: MODEL=pv-el-cells DATA=dir JSON=file SPLIT=test
	@$(RUN) -m linewatch_models.evaluate --model "$(MODEL)" --data "$(DATA)" $(if $(JSON),--json "$(JSON)") \
	  $(if $(SPLIT),--split $(SPLIT)) $(if $(PACKAGE),--package "$(PACKAGE)")

.PHONY: package
package: setup ## a checked model package from your ONNX=file DESCRIPTION=file OUT=dir GOLDEN=dir
	@$(RUN) -m linewatch_models.package --onnx "$(ONNX)" --description "$(DESCRIPTION)" $(if $(INT8),--int8 "$(INT8)") \
	  $(if $(GOLDEN),--golden "$(GOLDEN)") $(if $(CARD),--card "$(CARD)") $(if $(SIGNING_KEY),--signing-key "$(SIGNING_KEY)") \
	  $(if $(OUT),--out "$(OUT)")

.PHONY: protos
protos: setup ## write the stubs from protos/
	protos/generate

.PHONY: lock
lock: ## resolve requirements.in into pinned, hashed requirements.txt (needs uv)
	tools/lock

.PHONY: setup
setup: ## make .venv
	@tools/setup requirements-dev.txt

.PHONY: clean
clean: ## remove what was made here
	rm -rf .venv build
