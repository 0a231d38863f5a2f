#!/usr/bin/env bash
# N hosts with a slow network between them, on one Linux machine: a network namespace and a
# host name for each, joined by a bridge whose ports are limited to RATE. Real TCP, so that
# what Horovod and Open MPI send across machines can be timed and counted. Needs root and
# iproute2 (Debian: apt-get install iproute2).
#
#   slow_hosts.sh up [N=2] [RATE=1gbit]   hosts knet-h1 ... knet-hN at 10.201.77.1 ... N
#   slow_hosts.sh mpirun ARGS...          mpirun from the first host, one rank a host
#   slow_hosts.sh run HOST COMMAND...     run a command on one host
#   slow_hosts.sh bytes                   bytes that each host has sent so far
#   slow_hosts.sh down                    remove them
#
# Everything it makes has a name that begins with knet-: namespaces, interfaces of this
# machine and /etc/netns/knet-*, whose hosts file `ip netns exec` mounts over /etc/hosts in
# the namespace. Nothing else is changed, and `down` removes nothing else.
#
# The hosts share this machine's cores, so ranks that wait must yield theirs; without that a
# 1 KB allreduce takes 16 ms instead of 1. Nor may each host bind its rank to its first core,
# which is the same one.
#
#   slow_hosts.sh up 2 1gbit && slow_hosts.sh mpirun python train.py && slow_hosts.sh down
set -euo pipefail
self=$(readlink -f "$0")
prefix=knet-h
bridge=knet-br0
subnet=10.201.77
files=/etc/netns

hosts() { ip netns list | awk -v name="^${prefix}[0-9]+\$" '$1 ~ name { print $1 }' | sort -V; }

# A UTS namespace too, so that `hostname` names the host: Horovod tells machines apart by it.
enter() {
  local host=$1
  shift
  # shellcheck disable=SC2016 # the inner shell expands it
  exec unshare --uts sh -c 'hostname "$0"; exec ip netns exec "$0" "$@"' "$host" "$@"
}

add_host() {
  local host=$1 number=$2 rate=$3 all=$4 i
  mkdir -p "$files/$host"
  {
    echo "127.0.0.1 localhost"
    for i in $(seq "$all"); do echo "$subnet.$i $prefix$i"; done
  } >"$files/$host/hosts"
  ip netns add "$host"
  ip link add "$prefix$number" type veth peer name eth0 netns "$host"
  ip link set "$prefix$number" master "$bridge" up
  ip -n "$host" addr add "$subnet.$number/24" dev eth0
  ip -n "$host" link set eth0 up
  ip -n "$host" link set lo up
  if [ "$rate" != unlimited ]; then
    ip netns exec "$host" tc qdisc add dev eth0 root tbf rate "$rate" burst 512kb latency 200ms
  fi
}

up() {
  local count=$1 rate=$2 i
  down
  trap down EXIT # what a failure left; taken back below
  ip link add "$bridge" type bridge
  ip link set "$bridge" up
  for i in $(seq "$count"); do add_host "$prefix$i" "$i" "$rate" "$count"; done
  trap - EXIT
}

down() {
  local host folder
  for host in $(hosts); do
    ip link del "$host" 2>/dev/null || true
    ip netns del "$host"
  done
  ip link del "$bridge" 2>/dev/null || true
  for folder in "$files/$prefix"[0-9]*; do
    if [ -d "$folder" ]; then
      rm -f "$folder/hosts"
      rmdir "$folder"
    fi
  done
  rmdir --ignore-fail-on-non-empty "$files" 2>/dev/null || true
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
  PRTE_MCA_plm_ssh_agent=$agent "$self" run "${prefix}1" mpirun --allow-run-as-root --host "$slots" \
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
    case $host in "$subnet".*) host=$prefix${host##*.} ;; esac
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
    sed -n '2,22p' "$self"
    exit 2
    ;;
esac
