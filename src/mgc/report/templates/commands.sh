#!/bin/sh
# Runs that exist are skipped.
set -eu
[ -n "${{DATA:-}}" ] || DATA={data}
mgc data check --data "$DATA"
{runs}
mgc compare --data "$DATA"
mgc report --data "$DATA" --bundle
