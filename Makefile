# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

RELEASES := bookworm trixie
RELEASE ?= bookworm
SIZE ?= full
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/racefree-block

RUN := tests/setup/run
STEP := tests/setup/step

FAST := format types units sanity lint docs-lint docs changelog-lint licences integration-loop
# make test runs these when the emulated hosts are done, so that both of its lanes end at about the same time.
LAST := importer cores selftest

.PHONY: help test test-fast test-xen demo $(FAST) $(LAST) units-all test-kernel image test-host test-extended quickstart molecule campaign bench pictures build install clean

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

# The emulated hosts come first: their programs have limits in seconds, such as libxl's 40 s for a hotplug script.
test: export RACEFREE_TURN = $(if $(filter-out 0 1 2 all,$(TURN)),$(error TURN=$(TURN): must be 0, 1, 2 or all)$\
	)$(if $(filter all,$(TURN)),,$(or $(TURN),$(shell tests/setup/turn)))
test: ## All tests, in two lanes; of the slow ones a third, which depends on the commit (TURN=all: all of them)
	@$(STEP) packages tests/setup/packages
	@echo "Slow tests: $(or $(RACEFREE_TURN:%=the third with number %),all)"
	@tests/setup/lanes 'nice -n 5 $(MAKE) --no-print-directory $(FAST) test-kernel RELEASE=' \
		'$(MAKE) --no-print-directory test-xen && $(MAKE) --no-print-directory $(LAST) campaign SIZE=small'

test-fast: $(FAST) $(LAST) ## Everything that needs no Xen host
	@$(MAKE) --no-print-directory test-kernel campaign RELEASE= SIZE=small

test-xen: ## Tests on the emulated Xen hosts of all releases, one after the other
	@set -e; for release in $(RELEASES); do $(MAKE) --no-print-directory image test-host RELEASE=$$release; done

demo: ## Start an emulated Xen host, show the main use case, and remove everything
	@tests/demo/run

units: ## Unit tests, with Debian's Python
	@$(STEP) units tests/setup/units

units-all: ## Unit tests by ansible-test, with every Python that it finds
	@$(STEP) units-all tests/setup/ansible-test units --venv --num-workers 2

cores: ## Newer versions of ansible-core, and a play with each version and each managed Python
	@$(STEP) cores tests/cores/run

sanity: ## ansible-test sanity of the oldest and the newest ansible-core, with every Python that it finds
	@$(STEP) sanity tests/cores/sanity oldest
	@$(STEP) sanity-newest tests/cores/sanity newest

format: ## Format and lint all Python files (ruff); FIX=1 corrects what it can
	@$(STEP) ruff-format $(RUN) ruff format $(if $(FIX),'$(CURDIR)',--check --quiet .)
	@$(STEP) ruff-check $(RUN) ruff check --quiet $(if $(FIX),--fix '$(CURDIR)',.)

types: ## Types of the library (mypy, strict)
	@$(STEP) mypy tests/setup/types

lint: ## ansible-lint, yamllint, shellcheck
	@$(STEP) ansible-lint $(RUN) ansible-lint --strict
	@$(STEP) yamllint $(RUN) yamllint --strict .
	@$(STEP) shellcheck $(RUN) tests/setup/shell-lint

docs-lint: ## Documentation of plugins and roles
	@$(STEP) docs-lint $(RUN) antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=all .

docs: ## Documentation site, in .build/docs; warnings and broken links are errors
	@$(STEP) docs tests/setup/docs

pictures: ## Run the plays of tools/pictures on this machine, and draw what they print for docs/images
	@RACEFREE_VENV=docs $(RUN) python -m tools.pictures '$(CURDIR)/docs/images'

changelog-lint: ## Changelog fragments
	@$(STEP) changelog-lint $(RUN) antsibull-changelog lint

licences: ## Licence and copyright of all files
	@$(STEP) licences $(RUN) reuse lint

importer: ## galaxy-importer on the built archive
	@$(STEP) importer tests/setup/importer

integration-loop: ## Integration targets on this machine's own loop and device-mapper devices
	@$(STEP) integration-loop tests/setup/integration

selftest: ## Tests of the tool that runs kernels as processes
	@$(STEP) selftest tests/setup/units tests/selftest

test-kernel: ## Tests on a kernel that runs as a process: the newest one (forky's), or RELEASE's
	@$(STEP) test-kernel$(if $(filter command line,$(origin RELEASE)),$(RELEASE:%=-%)) tests/kernel/run \
		$(if $(filter command line,$(origin RELEASE)),$(RELEASE:%=--release %))

test-roles: ## Tests of roles, on such a kernel with systemd as its init system
	@$(STEP) test-roles tests/kernel/run --systemd -m systemd
	@$(STEP) test-reboot tests/kernel/kernel run --systemd --site --timeout 600 -- python3 -B swap_reboot.py

image: ## Make the image of the emulated Xen host of RELEASE if it is not in the cache
	@$(STEP) image-$(RELEASE) tests/xenhost/xenhost build --install --release $(RELEASE)

test-host: ## Tests on the emulated Xen host of RELEASE (bookworm or trixie)
	@$(STEP) test-host-$(RELEASE) tests/host/run $(RELEASE)

test-extended: ## Tests of blkback on a host of RELEASE whose blkback compares disk sequence numbers
	@$(STEP) test-extended-$(RELEASE) tests/host/run --blkback extended --scenario hotplug $(RELEASE) \
		-m 'not long' test_extended.py test_blkback.py test_hotplug.py test_vbd.py test_libvirt_vbd.py

quickstart: ## What README.md tells a new user to do, from the built archive, on an emulated host of RELEASE
	@$(STEP) quickstart-$(RELEASE) $(RUN) python '$(CURDIR)/tests/quickstart/quickstart.py' $(RELEASE)

molecule: ## Scenarios on the running emulated host, or on those of RACEFREE_INVENTORY
	@$(STEP) molecule tests/setup/molecule test --all --no-command-borders

campaign: ## The long test run, whose results are stored; SIZE=small: a small part, in minutes
	@$(STEP) campaign-$(SIZE) python3 -B tests/campaign/campaign.py $(SIZE) $(CAMPAIGN)

bench: ## Measure beside other tools, for docs/speed.md; BENCH='SUBJECT OPTIONS': a part; BASE=REVISION: compare with that version
	@$(STEP) bench $(RUN) python tests/bench/bench.py --checkout '$(CURDIR)' $(if $(BASE),--base '$(BASE)') $(BENCH)

build: ## Build the archive into .build/
	@rm -f .build/*.tar.gz
	@$(RUN) python -m tools.archive '$(CURDIR)/.build'

# The staged copy must not count as an installed one: the archive would be unpacked over it.
install: build ## Install the collection where Ansible looks, or into COLLECTIONS=DIRECTORY
	@$(RUN) env --unset=ANSIBLE_COLLECTIONS_PATH --unset=ANSIBLE_HOME ansible-galaxy collection install --force --offline \
		$(if $(COLLECTIONS),--collections-path '$(abspath $(COLLECTIONS))') '$(CURDIR)'/.build/*.tar.gz

clean: ## Remove all caches except the images of emulated hosts
	rm -rf -- .build '$(CACHE)'/{venv-*,stage-*,home,hypothesis}
