# The image of every Leat process: the static binary, the certificates of public authorities, nothing else. No shell, no
# package manager; runs as a user without rights, on a read-only file system.
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${GO_IMAGE} AS build
# GOPROXY and GOFLAGS reach `go` as environment variables, for a build behind a proxy.
ARG GOPROXY
ARG GOFLAGS
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# timetzdata: mappings name time zones, and the image has no zone files.
RUN CGO_ENABLED=0 go build -trimpath -tags timetzdata -ldflags="-s -w" -o /out/leat ./cmd/leat

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/leat /usr/local/bin/leat
USER 65532:65532
EXPOSE 9464
ENTRYPOINT ["/usr/local/bin/leat"]
