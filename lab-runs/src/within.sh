# Stands in front of scripts for dom0.
# shellcheck shell=sh

# within SECONDS COMMAND...: tries it every `step` microseconds, and waits until it succeeds
within() {
	left=$(($1 * 1000000 / step))
	shift
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ $left -gt 0 ] || return 1
		usleep $step
	done
}

