# Short names for the scripts in build/, which work without make as well.

.PHONY: help run test quick setup bench docs pin

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

run: ## set up what is missing, run the local lab, print the path of the site
	@build/run

test: ## set up what is missing, run every check of the lab's own code
	@build/test

quick: ## the same without the tests that boot guests
	@build/test -m "not minutes"

setup: ## only set up
	@build/setup

bench: ## measure, and write docs/reference/benchmarks.md
	@build/setup test
	@.venv/bin/python -m benchmarks

docs: ## write docs/reference/ anew
	@build/setup test
	@.venv/bin/python docs/reference/generate.py

pin: ## write build/constraints.txt anew
	@build/pin
