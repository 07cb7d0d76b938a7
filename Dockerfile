# Two targets: todo-server (the default) and todo-hyper-min.
#   docker build -t todo-server .
#   docker build -t todo-hyper-min --target todo-hyper-min .

FROM rust:1.95-bookworm AS builder
WORKDIR /src
COPY . .
# The caches keep crates and objects between builds; the programs are copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p todo-server -p todo-hyper-min \
    && install -D -t /out target/release/todo-server target/release/todo-hyper-min \
    && install -d -o 65532 -g 65532 /data

# Contains only the C library: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot AS runtime
COPY --from=builder --chown=65532:65532 /data /data
# The working directory contains the database, its secret and .env. The rest of the file system may
# be read-only.
WORKDIR /data
VOLUME /data
USER 65532:65532
ENV HOST=0.0.0.0 PORT=8000
EXPOSE 8000
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.licenses="MIT OR Apache-2.0"

FROM runtime AS todo-hyper-min
LABEL org.opencontainers.image.title="todo-hyper-min"
COPY --from=builder /out/todo-hyper-min /usr/local/bin/
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/usr/local/bin/todo-hyper-min", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/todo-hyper-min"]

FROM runtime AS todo-server
LABEL org.opencontainers.image.title="todo-server"
COPY --from=builder /out/todo-server /usr/local/bin/
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/usr/local/bin/todo-server", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/todo-server"]
