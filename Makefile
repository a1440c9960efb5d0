# SPDX-License-Identifier: GPL-2.0
# Entry points for people and CI; the work is done by tools/lab (Python).

LAB := tools/lab/bootstrap && python3 tools/lab

.PHONY: help demo check fuzz bench-nic check-debug selftests vm kernel model overlay clean distclean

help:
	@echo 'make demo       set everything up, read real files over NVMe/TCP, placed by the NIC'
	@echo 'make check      set everything up, run every test'
	@echo 'make fuzz       fuzz the device model, FUZZ_SECONDS= for each of FUZZ_TARGETS='
	@echo 'make bench-nic  compare mlx5_rs with mlx5_core on one device model, the target in a second VM'
	@echo '     QUICK=1 BENCH_SECONDS= BENCH_REPETITIONS=   shorter, or longer'
	@echo 'make selftests  the kernel'"'"'s own tests of network drivers, with mlx5_core and with mlx5_rs'
	@echo '     DRIVER= TESTS=   only one driver, only some tests'
	@echo 'make check-debug   what loads our code, on a kernel with KASAN, lockdep, kmemleak and DMA-API checks'
	@echo 'make vm         boot the demo topology with a root shell on the console'
	@echo '     RUN=cmds   run commands there instead and exit with their status'
	@echo '     SHARE=dir  a directory that appears at /share in the guest, writable'
	@echo '     DRIVER= HOST= FAULTS= TOPO= CAPTURE= ACCEL=   see README.md'
	@echo 'make kernel     build the kernel and its modules'
	@echo 'make model      build the device model'
	@echo 'make overlay    only bring the kernel tree up to date'
	@echo 'make clean      remove the build (kernel tree, objects, device model)'
	@echo 'make distclean  remove the whole cache: tool root, sources, builds'

demo:
	@$(LAB) demo

check:
	@.ci/run

fuzz:
	@$(LAB) fuzz

bench-nic:
	@$(LAB) bench-nic

selftests:
	@$(LAB) selftests

# A build of its own, beside the other.
check-debug: export BUILD := $(or $(BUILD),base)-debug
check-debug:
	@$(LAB) check-debug

# With its $, which are the guest's.
ifdef RUN
override export RUN := $(value RUN)
endif
vm:
	@$(LAB) make-vm

kernel model overlay:
	@$(LAB) $@

clean distclean:
	@python3 tools/lab $@
