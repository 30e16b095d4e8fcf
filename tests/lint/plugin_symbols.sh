#!/bin/sh
# The SASL plugin is loaded into a stranger's process: it shows one symbol, so
# that it can't clash, and needs libc alone, so that it loads in any of them.
# Usage: plugin_symbols.sh [librelay365.so], from the build folder
set -eu
export LC_ALL=C

so=${1:-sasl2/librelay365.so}
test -r "$so" || { echo "$so: no such file" >&2; exit 1; }
status=0

symbols=$(nm -D --defined-only "$so" | awk '{ print $NF }')
if [ "$symbols" != sasl_client_plug_init ]; then
	# shellcheck disable=SC2086 # a list, on one line
	echo "$so: shows more or less than sasl_client_plug_init:" $symbols >&2
	status=1
fi

needed=$(readelf -d "$so" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p')
if [ "$needed" != libc.so.6 ]; then
	# shellcheck disable=SC2086 # a list, on one line
	echo "$so: needs more or less than libc.so.6:" $needed >&2
	status=1
fi

# What would end, stop or signal the process, or write outside of libsasl2's log.
if nm -D --undefined-only "$so" |
	grep -E ' (_?exit|abort|kill|raise|signal|sigaction|alarm|syslog|openlog|vsyslog|printf|fork|sleep)(@|$)' >&2; then
	echo "$so: calls what a plugin must not call" >&2
	status=1
fi
exit $status
