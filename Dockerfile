# The gitsync image: the program, both schedulers, git, python, tini; a user of its own. docs/container.md says how to run it
# and how to build a job's own image on it.
#
#   docker build -t gitsync .

ARG RUST_IMAGE=rust:1-slim-trixie
ARG BASE_IMAGE=debian:stable-slim
# Where /gitsync comes from: the stage below, or an image that has one (tests/image.sh).
ARG BINARY=build

FROM ${RUST_IMAGE} AS build
WORKDIR /src
# The dependencies first: this layer is rebuilt only when they change.
COPY Cargo.toml Cargo.lock ./
# Only the tests use this, but cargo reads the manifest of every package that Cargo.toml names.
COPY tests/needs tests/needs
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
    && cargo build --release --locked && rm -r src
COPY src src
# cargo compares modification times, and those of a checkout may be older than the layer above.
RUN find src -name '*.rs' -exec touch {} + && cargo build --release --locked && cp target/release/gitsync /gitsync

FROM ${BINARY} AS binary

FROM ${BASE_IMAGE}
# supercronic is in Debian's testing suite: its source is the stable one with the suite's name replaced, pinned so that
# nothing else comes from it, and removed again afterwards. The default commands call python.
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
    org.opencontainers.image.description="Keeps a git repository that a machine works in, and its remote, in sync" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"

# A named volume takes over the owner of these two; for a bind mount start with `user:` set to the folder's owner.
VOLUME ["/repo", "/public"]
ENV GIT_SYNC_REPO=/repo \
    GIT_SYNC_PUBLIC_DIR=/public \
    GIT_SYNC_REPLACE_PUBLIC_DIR=true
USER 10001:10001
WORKDIR /repo

# tini reaps what jobs leave behind, and passes signals on to the entry point, which passes them on to a running tick. A pass
# ends within 20 s of SIGTERM: stop with a grace period of 30 s (docker's default is 10).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/gitsync/entrypoint.sh"]
CMD ["supercronic"]

# A good sync within one interval plus 90 s. A first clone may take an hour; if it fails, the start fails.
HEALTHCHECK --interval=30s --timeout=10s --start-period=1h --retries=3 \
    CMD exec gitsync status --max-age "$((${GIT_SYNC_SYNC_INTERVAL:-30} + 90))s"
