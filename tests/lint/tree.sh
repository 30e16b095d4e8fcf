#!/bin/sh
# The rules of the tree: who may include whom, where each foreign header lives,
# and the limits of style.
# Usage: tree.sh [TOP]: the top of the source tree, the current folder if not given.
set -eu
export LC_ALL=C

# As a test of "make check" it runs in the build tree, which may be another.
cd "${1:-${srcdir:-.}}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/bad"

parts='milter token postfix sendmail ctl'

# What was generated or built is not ours to judge.
roots=
for root in lib $parts tests contrib .ci README.md NEWS COPYING SECURITY.md Makefile.am \
	configure.ac .clang-format .gitignore; do
	test ! -e "$root" || roots="$roots $root" # git keeps no empty folder
done
# shellcheck disable=SC2086 # a list of folders
find $roots \
	\( -name .deps -o -name __pycache__ -o -name .pytest_cache -o -path contrib/build-aux \
	-o -path contrib/m4 -o -path ctl/handover_text.h \) -prune -o -type f -size +0 \
	! -name '*.o' ! -name '*.log' ! -name '*.trs' -print | sort >"$work/all"
# Text only: a binary file would match by chance.
xargs grep -lI . <"$work/all" >"$work/text" || true
grep '\.[ch]$' "$work/text" >"$work/c"
grep -v '^tests/' "$work/c" >"$work/product"
test -s "$work/product" || { echo 'tree.sh: no sources here; is this the top?' >&2; exit 1; }

# --- layers ---

# FILE:LINE:HEADER of each include.
xargs grep -En '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]' <"$work/product" /dev/null |
	sed 's/^\([^:]*:[0-9]*\):[^<"]*[<"]\([^>"]*\)[>"].*/\1:\2/' >"$work/includes"

# shellcheck disable=SC2129 # every rule of this file adds to the list
awk -F: -v parts="$parts" '
	BEGIN { n = split(parts, part, " "); for (i = 1; i <= n; i++) is_part[part[i]] = 1 }
	{
		from = $1; sub(/\/.*/, "", from)
		to = $3; sub(/\/.*/, "", to)
		if (!(to in is_part) || to == from)
			next
		if (from == "token" && $3 == "postfix/socketmap.h") next
		if (from == "ctl" && $3 ~ /^postfix\/(check|edit|facts|generate|merge)[.]h$/) next
		if (from == "ctl" && $3 == "sendmail/generate.h") next
		print $1 ":" $2 ": " from " must not include " $3
	}' "$work/includes" >>"$work/bad"

# --- foreign headers: one home each, two files at most ---

awk -F: '
	$3 == "mfapi.h" || $3 ~ /\/mfapi\.h$/ { home["mfapi.h", $1] }
	$3 ~ /^curl\// { home["curl.h", $1] }
	$3 == "sqlite3.h" { home["sqlite3.h", $1] }
	$3 == "zlib.h" { home["zlib.h", $1] }
	$3 == "libconfig.h" { home["libconfig.h", $1] }
	$3 ~ /^sasl\// || $3 ~ /^sasl(plug)?\.h$/ { home["sasl.h", $1] }
	$3 ~ /^openssl\// { home["openssl", $1] }
	END {
		for (pair in home) {
			split(pair, field, SUBSEP)
			count[field[1]]++
			files[field[1]] = files[field[1]] " " field[2]
		}
		for (header in count)
			# OpenSSL has three jobs: to sign, to speak TLS, to make a key.
			if (count[header] > (header == "openssl" ? 3 : 2))
				print header ": stands in too many files:" files[header]
	}' "$work/includes" >>"$work/bad"

# --- the first include of each C file ---

while read -r file; do
	case $file in
	*.h) continue ;;
	esac
	own=${file%.c}.h
	own=${own#lib/}
	first=$(sed -n 's/^#[[:space:]]*include[[:space:]]*[<"]\([^>"]*\)[>"].*/\1/p' "$file" | head -n 1)
	case $first in
	base/compat.h | "$own" | "$(basename "$own")") ;;
	*)
		# A part of a module that was split may begin with a header of that module.
		module=$(basename "$own" .h)
		case $(dirname "$first")/$(basename "$first" .h)_ in
		"$(dirname "$own")/${module%%_*}_"*) ;;
		*) echo "$file: its first include is ${first:-missing}, not base/compat.h or $own" ;;
		esac
		;;
	esac
done <"$work/product" >>"$work/bad"

# --- sizes ---

while read -r file; do
	awk -v file="$file" '
		/^\{/ { from = NR }
		/^\}/ { if (from && NR - from + 1 > 80)
				print file ":" from ": a function of " NR - from + 1 " lines; 80 is the limit"
			from = 0 }
		END { if (NR > 600) print file ": has " NR " lines; 600 is the limit" }' "$file"
done <"$work/c" >>"$work/bad"
grep '\.\(py\|sh\)$' "$work/text" | while read -r file; do
	awk -v file="$file" 'END { if (NR > 600) print file ": has " NR " lines; 600 is the limit" }' "$file"
done >>"$work/bad"

# --- leftovers ---

# Bracketed, so that these lines don't find themselves.
xargs grep -EnH '(^|[^[:alnum:]_])([T]ODO|[F]IXME|[X]XX)([^[:alnum:]_]|$)' <"$work/text" |
	sed 's/^\([^:]*:[0-9]*\):.*/\1: a note to self; do it or drop it/' >>"$work/bad" || true
xargs grep -EnH '[[:blank:]]+$' <"$work/text" |
	sed 's/^\([^:]*:[0-9]*\):.*/\1: white space at the end of the line/' >>"$work/bad" || true
xargs grep -EnH '(^|[^[:alnum:]_.}])/([w]ork|[f]arm)(/|$)' <"$work/text" |
	sed 's/^\([^:]*:[0-9]*\):.*/\1: the path of somebody'\''s machine/' >>"$work/bad" || true

# --- form ---

version=$(clang-format --version 2>/dev/null | sed -n 's/.*version \([0-9]*\).*/\1/p')
if [ "$version" = 14 ]; then
	xargs clang-format --dry-run --Werror <"$work/c" 2>&1 |
		sed -n 's/^\([^:]*:[0-9]*\):.*code should be clang-formatted.*/\1: clang-format would write this differently/p' |
		sort -u >>"$work/bad"
else
	echo "tree.sh: clang-format 14 is not installed (found ${version:-none}): form was not checked" >&2
fi

if test -s "$work/bad"; then
	cat "$work/bad" >&2
	exit 1
fi
