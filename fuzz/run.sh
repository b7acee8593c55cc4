#!/bin/sh
# Runs every fuzz target, or those named, for so many seconds each: fuzz/run.sh SECONDS [TARGET...]
# One allocation above 8 MiB, or 1 GiB in all, is a failure: no input is longer than 64 KiB. Inputs that fail go to
# fuzz/artifacts, the corpora that grow meanwhile to fuzz/target/corpus; the seeds stay as they are. Ends with status 1 if
# a target failed.
set -eu
cd "$(dirname "$0")/.."
seconds=$1
shift
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
status=0
for target in "$@"; do
    grown="fuzz/target/corpus/$target"
    log="fuzz/target/$target.log"
    mkdir -p "$grown"
    cargo +nightly fuzz run "$target" "$grown" "fuzz/corpus/$target" -- -max_total_time="$seconds" \
        -max_len=65536 -malloc_limit_mb=8 -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1 || status=1
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions"
    grep -E "panicked|^SUMMARY|^error" "$log" || true
done
exit $status
