# A small image with nothing but outboxd: no shell, no package manager, not root. It writes no file, so a
# read-only root file system does.
#
#   docker build --tag outboxd .
#   docker run --rm --read-only --cap-drop ALL outboxd --help
#
# The two Debian releases belong together: the program is linked to the glibc of the first.
FROM rust:1.95-trixie AS build
WORKDIR /src
COPY . .
# The runtime image has no libz. Backtraces need the symbols; the rest of the debug information is most of
# the program.
ENV LIBZ_SYS_STATIC=1 \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --no-default-features --features relay --bin outboxd \
    && cp target/release/outboxd /outboxd

FROM gcr.io/distroless/cc-debian13:nonroot
LABEL org.opencontainers.image.title="outboxd" \
      org.opencontainers.image.description="A transactional outbox relay: committed Postgres rows reach Kafka in order, at least once" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian13:nonroot"
COPY LICENSE /usr/share/doc/outboxd/LICENSE
COPY --from=build /outboxd /usr/local/bin/outboxd
# It starts on what this image has, or there is no image.
RUN ["/usr/local/bin/outboxd", "--version"]
USER 65532:65532
# Health and metrics, once admin.listen is told to listen here: OUTBOXD_ADMIN__LISTEN=0.0.0.0:9464.
EXPOSE 9464
# Alive, not ready: a container is not to be replaced because Kafka or Postgres is away.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/outboxd", "probe"]
ENTRYPOINT ["/usr/local/bin/outboxd"]
CMD ["run"]
