# nearcache in a container: built with the Rust image, run on a small Debian as a user without rights.
# The root file system may be read-only; nothing is written but the log, which goes to standard error.
FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Named by Cargo.toml, so cargo wants it to be there.
COPY benches benches
RUN cargo build --release --locked && strip target/release/nearcache

FROM debian:bookworm-slim
# Whom rediss:// trusts unless REDIS_TLS_CA_FILE says otherwise.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin nearcache
COPY --from=build /src/target/release/nearcache /usr/local/bin/nearcache
USER 10001:10001
# Inside a container loopback is the container's own: listen on all of its addresses and let the publisher choose.
# It does not start without CLIENT_PASSWORD (or CLIENT_PASSWORD_FILE, or a password in REDIS_URL) unless
# ALLOW_UNAUTHENTICATED=yes says that the ports are published to nobody who should not use them.
ENV NEARCACHE_BIND=0.0.0.0 \
    NEARCACHE_DRAIN_SECS=30 \
    NEARCACHE_ADMIN_BIND=0.0.0.0 \
    NEARCACHE_HTTP_PORT=6000 \
    NEARCACHE_RESP_PORT=6380 \
    NEARCACHE_ADMIN_PORT=6390
EXPOSE 6000 6380 6390
STOPSIGNAL SIGTERM
# Healthy is a proxy that answers. Whether Redis is there is another question (INFO nearcache): while it is away, PING
# gets an error of the proxy's own (with a password in REDIS_URL: one that asks for it), and starting the container anew
# would not help.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/$NEARCACHE_RESP_PORT && printf 'PING\\r\\n' >&3 && read -r -t 2 reply <&3 && [[ $reply == +PONG* || $reply == '-ERR nearcache: '* || $reply == '-NOAUTH '* ]]"]
ENTRYPOINT ["nearcache"]
