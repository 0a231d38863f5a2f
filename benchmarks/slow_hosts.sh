#!/usr/bin/env bash
# N hosts with a slow network between them, on one Linux machine: a network namespace and a
# host name for each, joined by a bridge whose ports are limited to RATE. Real TCP, so that
# what Horovod and Open MPI send across machines can be timed and counted. Needs root and
# iproute2 (Debian: apt-get install iproute2).
#
#   slow_hosts.sh up [N=2] [RATE=1gbit]   hosts h1 ... hN at 10.77.0.1 ... N
#   slow_hosts.sh mpirun ARGS...          mpirun from h1, one rank a host
#   slow_hosts.sh run HOST COMMAND...     run a command on one host
#   slow_hosts.sh bytes                   bytes that each host has sent so far
#   slow_hosts.sh down                    remove everything
#
# The hosts share this machine's cores, so ranks that wait must yield theirs; without that a
# 1 KB allreduce takes 16 ms instead of 1. Nor may each host bind its rank to its first core,
# which is the same one.
#
#   slow_hosts.sh up 2 1gbit && slow_hosts.sh mpirun python train.py && slow_hosts.sh down
set -euo pipefail
self=$(readlink -f "$0")
bridge=knetbr0
subnet=10.77.0
hosts_file=/etc/hosts

hosts() { ip netns list | awk '/^h[0-9]+( |$)/{print $1}' | sort -V; }

# A UTS namespace too, so that `hostname` names the host: Horovod tells machines apart by it.
enter() {
  local host=$1
  shift
  exec unshare --uts sh -c 'hostname "$0"; exec ip netns exec "$0" "$@"' "$host" "$@"
}

up() {
  local count=$1 rate=$2 i
  ip link show "$bridge" >/dev/null 2>&1 && down
  ip link add "$bridge" type bridge
  ip link set "$bridge" up
  for i in $(seq "$count"); do
    ip netns add "h$i"
    ip link add "knetv$i" type veth peer name eth0 netns "h$i"
    ip link set "knetv$i" master "$bridge" up
    ip -n "h$i" addr add "$subnet.$i/24" dev eth0
    ip -n "h$i" link set eth0 up
    ip -n "h$i" link set lo up
    if [ "$rate" != unlimited ]; then
      ip netns exec "h$i" tc qdisc add dev eth0 root tbf rate "$rate" burst 512kb latency 200ms
    fi
    grep -q "^$subnet.$i " "$hosts_file" || echo "$subnet.$i h$i" >>"$hosts_file"
  done
}

down() {
  local host rest
  for host in $(hosts); do
    ip link del "knetv${host#h}" 2>/dev/null || true
    ip netns del "$host"
  done
  ip link del "$bridge" 2>/dev/null || true
  rest=$(grep -v "^10\.77\.0\." "$hosts_file" || true)
  printf '%s\n' "$rest" >"$hosts_file" # in place: it may be a mount, which cannot be replaced
}

run_mpirun() {
  local slots agent
  slots=$(hosts | sed 's/$/:1/' | paste -sd,)
  agent=$(mktemp)
  # mpirun starts the other hosts' daemons through this in place of ssh.
  printf '#!/bin/sh\nexec "%s" rsh "$@"\n' "$self" >"$agent"
  chmod +x "$agent"
  # shellcheck disable=SC2064 # the name of now
  trap "rm -f '$agent'" EXIT
  PRTE_MCA_plm_ssh_agent=$agent "$self" run h1 mpirun --allow-run-as-root --host "$slots" \
    -np "$(hosts | wc -l)" --bind-to none --mca mpi_yield_when_idle 1 --mca pml ob1 --mca btl tcp,self \
    --mca btl_tcp_if_include "$subnet.0/24" "$@"
}

case "${1:-}" in
  up) up "${2:-2}" "${3:-1gbit}" ;;
  down) down ;;
  run)
    shift
    enter "$@"
    ;;
  rsh) # HOST COMMAND-LINE, as mpirun calls ssh
    host=$2
    shift 2
    case $host in "$subnet".*) host=h${host##*.} ;; esac
    enter "$host" /bin/sh -c "$*"
    ;;
  mpirun)
    shift
    run_mpirun "$@"
    ;;
  bytes)
    for host in $(hosts); do
      echo "$host $(ip netns exec "$host" cat /sys/class/net/eth0/statistics/tx_bytes)"
    done
    ;;
  *)
    sed -n '2,18p' "$self"
    exit 2
    ;;
esac
