# make fly                            first flight, into a photo that comes along
# make fly IMAGE=my.jpg FRAMES=200    into your own photo
# make test                           all tests
# make bench                          times, as a table for the README
# make lint                           style

VENV ?= .venv
IMAGE ?=
FRAMES ?= 100
OUT ?= flight

SHELL := bash
.PHONY: fly test bench lint clean

fly: $(VENV)/.installed
	@$(VENV)/bin/infinite-nature fly --frames $(FRAMES) --out '$(OUT)' $(if $(IMAGE),'$(IMAGE)')

test: $(VENV)/.installed-test
	@$(VENV)/bin/python -m pytest

bench: $(VENV)/.installed
	@$(VENV)/bin/python benchmarks/run.py

lint: $(VENV)/.installed-test
	@$(VENV)/bin/ruff check .

$(VENV)/.installed: setup.py pyproject.toml scripts/install.sh
	@scripts/install.sh $(VENV)
	@touch $@

$(VENV)/.installed-test: setup.py pyproject.toml scripts/install.sh
	@scripts/install.sh $(VENV) train,test
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build install log *.egg-info flight
