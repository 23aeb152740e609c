# For those who have a container engine; scripts/image makes an image without one, with an SBOM and the same to the byte each time.
#
#   docker build --tag registry.example.com/countersign:0.1.0 .
#
# Tags move. To build twice from the same, write the digest behind each of both tags: rust:1.95-bookworm@sha256:…
# (`skopeo inspect --format '{{.Digest}}' docker://docker.io/library/rust:1.95-bookworm` prints it).

FROM docker.io/library/rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /countersign
COPY . .
# No path of the builder stands in the program.
ENV RUSTFLAGS="--remap-path-prefix=/usr/local/cargo=/cargo" CFLAGS="-ffile-prefix-map=/usr/local/cargo=/cargo"
RUN cargo build --release --locked --package countersign --bin countersign

# glibc and libgcc of the same Debian as the builder's, and public authorities; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /countersign/target/release/countersign /usr/bin/countersign
COPY LICENSE /usr/share/doc/countersign/copyright
# The number, as Kubernetes cannot tell from a name that it is not root's (`runAsNonRoot`).
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/usr/bin/countersign"]
LABEL org.opencontainers.image.title="countersign" \
      org.opencontainers.image.description="The gate that lets only trusted container images run in a Kubernetes cluster" \
      org.opencontainers.image.licenses="Apache-2.0"
