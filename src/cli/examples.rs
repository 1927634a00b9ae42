//! What the help of each command shows: a test parses every line of it.

pub const RUN: &str = "\
Examples:
  outboxd run
  outboxd run --config /etc/outboxd.toml
  outboxd run --until-empty --timeout 1m";

#[cfg(feature = "demo")]
pub const DEMO: &str = "\
Examples:
  outboxd demo
  outboxd demo --seconds 30 --rate 200
  outboxd demo --kafka localhost:9092";

pub const MIGRATE: &str = "\
Examples:
  outboxd migrate
  outboxd migrate --relay-role outboxd --app-role shop
  outboxd migrate --print
  outboxd migrate --inbox --consumer-role billing --json";

pub const CHECK: &str = "\
Examples:
  outboxd check
  outboxd check --connect --json
  outboxd check --print-acls --consumer billing";

pub const DEAD: &str = "\
Examples:
  outboxd dead list
  outboxd dead show 4711
  outboxd dead retry 4711 --why 'the schema is mended'";

pub const DEAD_LIST: &str = "\
Examples:
  outboxd dead list
  outboxd dead list --topic order-events --class row
  outboxd dead list --older-than 1h --json";

pub const DEAD_SHOW: &str = "\
Examples:
  outboxd dead show 4711
  outboxd dead show 4711 --payload";

pub const DEAD_RETRY: &str = "\
Examples:
  outboxd dead retry 4711 4712
  outboxd dead retry --all --topic order-events --dry-run
  outboxd dead retry --all --reason 'too large' --yes --why 'the topic takes 2 MB now'";

pub const DEAD_DISCARD: &str = "\
Examples:
  outboxd dead discard 4711 --why 'a test order'
  outboxd dead discard --all --key ord_1 --dry-run";

pub const DEAD_PARK: &str = "\
Examples:
  outboxd dead park --topic order-events --why 'all of them have the wrong schema'
  outboxd dead park --topic order-events --stop";

pub const PAUSE: &str = "\
Examples:
  outboxd pause --why 'the topic is being moved'
  outboxd pause --topic order-events
  outboxd pause --list";

pub const RESUME: &str = "\
Examples:
  outboxd resume
  outboxd resume --topic order-events";

pub const STATUS: &str = "\
Examples:
  outboxd status
  outboxd status --watch
  outboxd status --relay relay-1:9464 --json";

pub const PROBE: &str = "\
Examples:
  outboxd probe
  outboxd probe --ready";

pub const TAIL: &str = "\
Examples:
  outboxd tail
  outboxd tail --type order.placed --payload
  outboxd tail --correlation-id checkout-42 --count 1 --json";

pub const TRACE: &str = "\
Examples:
  outboxd trace checkout-42
  outboxd trace checkout-42 --database postgres://reader@billing-db/billing";

pub const REPLAY: &str = "\
Examples:
  outboxd replay --key ord_xyz789 --dry-run
  outboxd replay --from 2026-01-02T00:00:00Z --to 2026-01-03T00:00:00Z --rate 500
  outboxd replay --event-id 0192f0c1-2345-7abc-8def-0123456789ab";

pub const INBOX: &str = "\
Examples:
  outboxd inbox status
  outboxd inbox prune --retention 30d
  outboxd inbox dlq list --consumer billing";

pub const INBOX_STATUS: &str = "\
Examples:
  outboxd inbox status
  outboxd inbox status --consumer billing --topic order-events --json";

pub const INBOX_PRUNE: &str = "\
Examples:
  outboxd inbox prune
  outboxd inbox prune --consumer billing --retention 30d";

pub const DLQ: &str = "\
Examples:
  outboxd inbox dlq list --consumer billing
  outboxd inbox dlq redrive --consumer billing --all";

pub const DLQ_LIST: &str = "\
Examples:
  outboxd inbox dlq list --consumer billing
  outboxd inbox dlq list --consumer billing --json";

pub const DLQ_SHOW: &str = "\
Examples:
  outboxd inbox dlq show --consumer billing 0192f0c1-2345-7abc-8def-0123456789ab
  outboxd inbox dlq show --consumer billing 0192f0c1-2345-7abc-8def-0123456789ab --json";

pub const DLQ_REDRIVE: &str = "\
Examples:
  outboxd inbox dlq redrive --consumer billing 0192f0c1-2345-7abc-8def-0123456789ab
  outboxd inbox dlq redrive --consumer billing --all --json";

pub const DLQ_DISCARD: &str = "\
Examples:
  outboxd inbox dlq discard --consumer billing 0192f0c1-2345-7abc-8def-0123456789ab
  outboxd inbox dlq discard --consumer billing --all";

pub const BENCH: &str = "\
Examples:
  outboxd bench drain
  outboxd bench latency --rate 1000";

pub const BENCH_DRAIN: &str = "\
Examples:
  outboxd bench drain
  outboxd bench drain --rows 1000000 --runs 3 --on-sent delete";

pub const BENCH_LATENCY: &str = "\
Examples:
  outboxd bench latency --rate 1000 --seconds 60
  outboxd bench latency --quiet --events 50 --pause 1s";

pub const BENCH_IDLE: &str = "\
Examples:
  outboxd bench idle --seconds 60";

pub const BENCH_START: &str = "\
Examples:
  outboxd bench start --runs 20";

pub const BENCH_ENVELOPE: &str = "\
Examples:
  outboxd bench envelope --payload 2000 --json";

pub const COMPLETIONS: &str = "\
Examples:
  outboxd completions bash > /etc/bash_completion.d/outboxd
  outboxd completions zsh > /usr/share/zsh/site-functions/_outboxd
  outboxd completions fish > ~/.config/fish/completions/outboxd.fish";

pub const MAN: &str = "\
Examples:
  outboxd man > outboxd.1
  outboxd man dead retry > outboxd-dead-retry.1";
