#!/bin/sh
# Documentation against the tables it documents: every key of conf.def with its
# type, bounds and default, every event with its level, every metric, every
# command of relay365, in both directions; then mandoc's own opinion of each manual page,
# and the relative links of the Markdown files.
# Usage: docs.sh [TOP]: the top of the source tree, the current folder if not given.
set -eu
export LC_ALL=C

# As a test of "make check" it runs in the build tree, which may be another.
cd "${1:-${srcdir:-.}}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

# differ WHAT TABLE PAGE: of the two lists, in files of these names, what only one has.
differ()
{
	comm -23 "$work/table" "$work/page" | sed "s|^|$3: $1 missing or different, $2 has: |" >"$work/bad"
	comm -13 "$work/table" "$work/page" | sed "s|^|$3: $1 not as in $2: |" >>"$work/bad"
	test -s "$work/table" || echo "$2: no $1 found; has its form changed?" >>"$work/bad"
	if test -s "$work/bad"; then
		cat "$work/bad" >&2
		status=1
	fi
}

# --- configuration keys ---

conf=lib/conf/conf.def
page=lib/conf/relay365.conf.5
statedir=$(sed -n 's/.*\[statedir=\(\/[^]]*\)\].*/\1/p' configure.ac)
rundir=$(sed -n 's/.*\[rundir=\(\/[^]]*\)\].*/\1/p' configure.ac)

# Each KEY(...) on one line, the built-in folders as text.
awk '
	/^KEY\(/ { text = ""; open = 1 }
	open { text = text $0 " "; if (/"\)$/) { print text; open = 0 } }
' $conf | sed "s|RELAY365_STATEDIR \"|\"$statedir|g; s|RELAY365_RUNDIR \"|\"$rundir|g" |
awk '
	function quoted(list, separator,    part, n, i, text) {
		n = split(list, part, separator)
		for (i = 1; i <= n; i++)
			text = text (i > 1 ? ", " : "") "\"" part[i] "\""
		return text
	}
	function duration(ms) {
		if (ms % 86400000 == 0) return ms / 86400000 "d"
		if (ms % 3600000 == 0) return ms / 3600000 "h"
		if (ms % 60000 == 0) return ms / 60000 "m"
		return ms / 1000 "s"
	}
	{
		sub(/^KEY\(/, "")
		split($0, field, /, */)
		section = field[1]; name = field[2]; type = field[3]
		min = field[5]; max = field[6]
		gsub(/"/, "", name)
		# What is left: default, choices, documentation. Commas stand in texts too.
		for (i = 1; i <= 6; i++)
			sub(/^[^,]*, */, "")
		required = /^NULL,/
		value = ""
		if (match($0, /^"[^"]*"/))
			value = substr($0, 2, RLENGTH - 2)
		sub(/^("[^"]*"|NULL), */, "")
		choices = ""
		if (match($0, /^"[^"]*"/))
			choices = substr($0, 2, RLENGTH - 2)

		if (type == "STRING") what = "Text, " min " to " max " bytes"
		else if (type == "LIST") what = "List of texts, " min " to " max " bytes each"
		else if (type == "NUMBER") what = "Number, " min " to " max
		else if (type == "TIME") what = "Time, " duration(min) " to " duration(max)
		else if (type == "BOOL") what = "Boolean"
		else if (type == "CHOICE") what = "One of " quoted(choices, "[|]")
		else if (type == "WORD") what = "Text or number, " min " to " max " bytes"
		else what = "type " type ", which this test does not know"

		if (required) what = what "; required."
		else if (type == "LIST") what = what "; default: " (value == "" ? "empty" : quoted(value, ",")) "."
		else if ((type == "STRING" || type == "WORD") && value == "") what = what "; default: none."
		else if (type == "STRING" || type == "CHOICE") what = what "; default: \"" value "\"."
		else what = what "; default: " value "."
		print section, name ": " what
	}' | sort >"$work/table"

awk '
	/^\.Sh / { section = "" }
	/^\.Ss Top level/ { section = "TOP" }
	/^\.Ss Tenants/ { section = "TENANT" }
	/^\.Ss Mailboxes/ { section = "MAILBOX" }
	/^\.Ss Sources/ { section = "SOURCE" }
	/^\.Ss Limits/ { section = "LIMIT" }
	section != "" && /^\.It Ic / { name = $3; next }
	name != "" { print section, name ": " $0; name = "" }
' $page | sort >"$work/page"
differ key $conf $page

starts=lib/conf/conf_reload.c
sed -n 's/^\t{"\([a-z_]*\)", CONF_.*/\1/p' $starts | sort >"$work/table"
awk '
	/^These keys count only when/ { inside = 1; next }
	inside && /^\.Ic / { print $2; next }
	!/^and$/ { inside = 0 }
' $page | sort >"$work/page"
differ 'key that counts at the start' $starts $page

# --- events ---

events=lib/base/events.def
page=lib/base/relay365-events.7
# An entry may go on in the next line, behind any of its commas.
sed -n '/^EVENT(/{ :more
/)$/!{ N; b more
}
s/\n */ /g; s/^EVENT([A-Z_]*, "\([^"]*\)", \([A-Z]*\), .*/\1: Level: \2./p; }' $events |
	awk '{ $3 = tolower($3); print }' | sort >"$work/table"
awk '
	/^\.Sh / { inside = $2 == "EVENTS" }
	inside && /^\.Ss / { inside = 0 }
	inside && /^\.It Ic / { name = $3; next }
	name != "" { print name ": " $0; name = "" }
' $page | sort >"$work/page"
differ event $events $page

# --- metrics ---

metrics=ctl/metrics.def
page=ctl/relay365-metrics.7
# Name, kind and labels as the page has them, and the help.
awk '
	/^METRIC\(/ { text = ""; open = 1 }
	open { text = text $0 " "; if (/"\)$/) { print text; open = 0 } }
' $metrics | awk '
	{
		type = $2; sub(/,$/, "", type)
		n = 0
		while (match($0, /"[^"]*"/)) {
			text[++n] = substr($0, RSTART + 1, RLENGTH - 2)
			$0 = substr($0, RSTART + RLENGTH)
		}
		# name, unit, list, member, labels, help
		labels = text[5]
		gsub(/=[a-z_]*/, "", labels)
		gsub(/,/, ", ", labels)
		print text[1] (type == "COUNTER" ? "_total" : "") ": " \
			substr(type, 1, 1) tolower(substr(type, 2)) \
			(text[2] == "" ? "" : ", " text[2]) "; " \
			(labels == "" ? "no labels" : "labels: " labels) ". " text[6] "."
	}' | sort >"$work/table"
awk '
	/^\.Sh / { inside = $2 == "METRICS" }
	inside && /^\.It Ic / { name = $3; text = ""; next }
	name != "" && text == "" { text = $0; next }
	name != "" { print name ": " text " " $0; name = "" }
' $page | sort >"$work/page"
differ metric $metrics $page

# --- errors ---

tables='lib/explain/entra.def lib/explain/exchange.def lib/explain/delivery.def'
page=lib/explain/relay365-errors.7
# Each entry: what it is called, its class, its meaning. Its advice.
# shellcheck disable=SC2086 # a list of files
awk '
	/^(AADSTS|OAUTH|REPLY|BASIC)[(]/ { text = ""; open = 1 }
	open { text = text $0; if (/"[)]$/) { print text; open = 0 } else text = text " " }
' $tables | awk '
	{
		kind = $0; sub(/[(].*/, "", kind)
		gsub(/\\"/, "\001")
		n = 0
		while (match($0, /"[^"]*"/)) {
			text[++n] = substr($0, RSTART + 1, RLENGTH - 2)
			before = substr($0, 1, RSTART - 1)
			if (n == 1 || before ~ /[A-Z]/)
				class = before
			$0 = substr($0, RSTART + RLENGTH)
		}
		id = class
		gsub(/[^0-9]/, "", id)
		if (kind == "AADSTS") id = "AADSTS" id
		if (kind == "OAUTH" || kind == "REPLY") id = text[1]
		gsub(/.*[(]|[^A-Z_]/, "", class)
		gsub(/^AADSTS/, "", class)
		gsub(/_/, "-", class)
		if (kind == "BASIC") class = id < 500 ? "transient" : "config"
		line = id ": " tolower(class) ": " text[n - 1] ". " toupper(substr(text[n], 1, 1)) substr(text[n], 2) "."
		gsub(/\001/, "\"", line)
		gsub(/  +/, " ", line)
		print line
	}' | sort >"$work/table"
awk '
	function tell(    i) {
		for (i = 1; i <= names; i++)
			print name[i] ": " text
		names = 0
	}
	/^\.Sh / { inside = $2 == "TOKEN" || $2 == "EXCHANGE" }
	!inside { next }
	/^\.(It|El)/ { tell() }
	/^\.It / {
		sub(/^\.It Li /, "")
		names = split($0, name, " , ")
		for (i = 1; i <= names; i++)
			gsub(/"/, "", name[i])
		text = ""
		next
	}
	/^\./ { next }
	names > 0 { text = text (text == "" ? "" : " ") $0 }
' $page | sort >"$work/page"
differ error "$tables" $page

# --- commands ---

page=ctl/relay365.8
sed -n '/commands\[\] = {/,/^};/s/^	{"\([^"]*\)", .*/\1/p' ctl/main.c | sort -u >"$work/table"
awk '
	/^\.Sh / { inside = $2 == "COMMANDS" }
	inside && /^\.It Cm / { print $3 }
' $page | sort -u >"$work/page"
differ command ctl/main.c $page

page=contrib/completion/relay365.bash
sed -n "/commands='/,/'$/p" $page | tr -d "'" | sed 's/.*commands=//' | tr -s ' \t' '\n\n' |
	grep . | sort -u >"$work/page"
differ command ctl/main.c $page

# --- every manual page ---

folders=
for folder in lib milter token postfix sendmail ctl contrib; do
	test ! -d $folder || folders="$folders $folder"
done
# shellcheck disable=SC2086 # a list of folders
find $folders -name '*.[1-8]' -type f | sort >"$work/pages"
if command -v mandoc >/dev/null; then
	while read -r page; do
		mandoc -Tlint -Wwarning "$page" >&2 || status=1
	done <"$work/pages"
else
	echo 'docs.sh: mandoc is not installed: manual pages were not checked' >&2
fi

# --- links ---

for page in *.md tests/sim/README.md; do
	test -f "$page" || continue
	grep -o '](\([^)]*\))' "$page" | sed 's/^](//; s/)$//; s/#.*//' >"$work/links" || true
	while read -r link; do
		case $link in
		'' | *://* | mailto:*) continue ;;
		esac
		test -e "$(dirname "$page")/$link" && continue
		echo "$page: the link to $link leads nowhere" >&2
		status=1
	done <"$work/links"
done

exit $status
