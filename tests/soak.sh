#!/usr/bin/env bash
# A soak: millions of entries through the daemon, with merging and retention on, killed again and again.
#
#   cargo build --release --bin kifa --example gen-transactions
#   tests/soak.sh DIR ENTRIES [CHUNK]
#
# DIR must not exist; it needs room for three times SOAK_MAX_MIB (default 1024). Each round feeds CHUNK lines (default
# 1000000) of 200 bytes; every second round is killed (SIGKILL) somewhere in the middle, and the next goes on behind the
# last entry that is there. A line of figures for each round: what must stay flat is the memory, the number of files and
# the time of a lookup. The end is `kifa verify --deep`, and every line is checked against its own checksum.
set -euo pipefail

dir=${1:?usage: soak.sh DIR ENTRIES [CHUNK]} entries=${2:?how many entries} chunk=${3:-1000000}
target=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/release
kifa=${KIFA:-$target/kifa} gen=${GEN:-$target/examples/gen-transactions}
max_mib=${SOAK_MAX_MIB:-1024}
unset "${!KIFA_@}" 2>/dev/null || true
export KIFA_COMPRESSION=zstd KIFA_LOG=error
[ ! -e "$dir" ] || { echo "soak: $dir exists already" >&2; exit 2; }

number() { "$kifa" stats -d "$dir" -o json | grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2; }
daemon=
trap 'kill -9 $daemon 2>/dev/null || true' EXIT

printf '%5s %10s %9s %6s %7s %9s %8s %10s %9s %s\n' \
    round entries 'entries/s' tables files MiB rss_MiB floor lookup_ms end
last=0 round=0
while [ "$last" -lt "$entries" ]; do
    round=$((round + 1)) begun=$(date +%s%N) before=$last
    "$kifa" daemon --stdin -d "$dir" --max-size-mib "$max_mib" \
        < <("$gen" --first $((last + 1)) --count "$chunk" 2>/dev/null) &
    daemon=$! how=whole rss=0
    kill_at=$((RANDOM % 3000 + 500)) waited=0
    while kill -0 $daemon 2>/dev/null; do
        now=$(grep -s VmRSS "/proc/$daemon/status" | tr -dc 0-9 || true)
        [ "${now:-0}" -le "$rss" ] || rss=$now
        sleep 0.1
        waited=$((waited + 100))
        if [ $((round % 2)) -eq 0 ] && [ "$waited" -ge "$kill_at" ]; then
            kill -9 $daemon && how=killed
            break
        fi
    done
    wait $daemon 2>/dev/null || [ $how = killed ] || { echo "soak: the daemon failed in round $round" >&2; exit 1; }
    # What a killed process has written may be given up or not: the next opening decides.
    [ $how = whole ] || "$kifa" vacuum -d "$dir" --to-size 1000000 >/dev/null
    seconds_ns=$(($(date +%s%N) - begun))
    last=$(number last_lsn)
    floor=$(number floor_lsn)
    lookup=$(date +%s%N)
    at=$((floor + RANDOM * 32768 % (last - floor + 1)))
    "$kifa" query -d "$dir" --from-lsn $at --to-lsn $at >/dev/null
    lookup=$((($(date +%s%N) - lookup) / 1000000))
    printf '%5d %10d %9d %6d %7d %9d %8d %10d %9d %s\n' $round "$last" \
        $(((last - before) * 1000000000 / seconds_ns)) "$(number tables)" "$(find "$dir" -type f | wc -l)" \
        $(($(number disk_bytes) >> 20)) $((rss / 1024)) "$floor" $lookup $how
done
"$kifa" verify -d "$dir" --deep
"$kifa" query -d "$dir" -o json 2>/dev/null | "$gen" --verify --first "$(number floor_lsn)"
