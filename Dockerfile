# The gitsync image: the program, both schedulers, git, python, tini; a user of its own. docs/container.md tells how to run it
# and how to build a job's own image on it.
#
#   docker build -t gitsync .

ARG RUST_IMAGE=rust:1-slim-trixie
ARG BASE_IMAGE=debian:stable-slim
# Where /gitsync comes from: the stage below, or an image that has one (tests/image.sh).
ARG BINARY=build

FROM ${RUST_IMAGE} AS build
WORKDIR /src
# The dependencies first: this layer is made again only when they change.
COPY Cargo.toml Cargo.lock ./
# Of the tests alone; cargo reads the manifest of everything that Cargo.toml names.
COPY tests/needs tests/needs
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
    && cargo build --release --locked && rm -r src
COPY src src
# cargo goes by times, and those of a checkout may be older than the layer above.
RUN find src -name '*.rs' -exec touch {} + && cargo build --release --locked && cp target/release/gitsync /gitsync

FROM ${BINARY} AS binary

FROM ${BASE_IMAGE}
# supercronic is in Debian's testing suite: its source is the stable one with the suite's name replaced, pinned so that
# nothing else comes from it, and gone again afterwards. python is what the default commands call.
RUN printf 'Package: %s\nPin: release a=testing\nPin-Priority: %d\n\n' '*' -1 supercronic 90 \
        >/etc/apt/preferences.d/testing \
    && awk -v RS= 'NR == 1' /etc/apt/sources.list.d/debian.sources \
        | sed 's/^Suites:.*/Suites: testing/' >/etc/apt/sources.list.d/testing.sources \
    && apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates git openssh-client python-is-python3 python3 supercronic supervisor tini \
    && rm -rf /etc/apt/preferences.d/testing /etc/apt/sources.list.d/testing.sources \
        /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 10001 gitsync \
    && useradd --uid 10001 --gid 10001 --create-home --shell /bin/sh gitsync \
    && install -d -o gitsync -g gitsync /repo /public
COPY --chmod=755 entrypoint.sh /opt/gitsync/entrypoint.sh
COPY --chmod=644 crontab supervisord.conf /opt/gitsync/
COPY --from=binary /gitsync /usr/local/bin/gitsync

ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="gitsync" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.description="Keeps a git repository that a machine works in, and its remote, together" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"

# A named volume takes over the owner of these two; for a bind mount start with `user:` set to the folder's owner.
VOLUME ["/repo", "/public"]
ENV GIT_SYNC_REPO=/repo \
    GIT_SYNC_PUBLIC_DIR=/public \
    GIT_SYNC_REPLACE_PUBLIC_DIR=true
USER 10001:10001
WORKDIR /repo

# tini reaps what jobs leave behind, and hands signals on to the entry point, which sees to it that a tick under way hears of
# them. A pass that is asked to end is gone within 20 s: stop with a grace of 30 (docker's own is 10).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/gitsync/entrypoint.sh"]
CMD ["supercronic"]

# One interval and 90 s for a good sync. A first clone may take an hour; it ends the start where it fails.
HEALTHCHECK --interval=30s --timeout=10s --start-period=1h --retries=3 \
    CMD exec gitsync status --max-age "$((${GIT_SYNC_SYNC_INTERVAL:-30} + 90))s"
