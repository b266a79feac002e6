# The service and its GPU worker in one image: `docker build -t orfeas .`; compose.yaml runs it.
#
# The NVIDIA driver is the host's, put in by its container toolkit; it must be able to run CUDA 13.0 (580 or newer).
# `base` has the CUDA runtime and no mathematics libraries: torch's wheel brings those it was built with.
FROM nvidia/cuda:13.0.3-base-ubuntu24.04 AS base

WORKDIR /opt/orfeas
ENV PATH=/opt/orfeas/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

COPY --chmod=0755 docker/install-system.sh docker/
RUN docker/install-system.sh

# The packages, in a stage of their own: whatever building them needs does not come along.
FROM base AS packages
COPY --chmod=0755 docker/install-python.sh docker/
COPY requirements.txt requirements-cluster.txt ./
RUN docker/install-python.sh .venv requirements.txt requirements-cluster.txt

FROM base
LABEL org.opencontainers.image.title="ORFEAS" \
    org.opencontainers.image.description="Pictures in, 3D meshes out, for agents" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="docker.io/nvidia/cuda:13.0.3-base-ubuntu24.04"
COPY --from=packages /opt/orfeas/.venv .venv/

# Modes are set here because a checkout may have been made for its owner's eyes only.
COPY --chmod=0755 docker/entrypoint.sh docker/healthcheck.sh docker/
COPY --chmod=0755 backend backend/
COPY --chmod=0755 orfeas_client orfeas_client/

# A number that stays the same, so that what lies in the volumes keeps its owner from one image to the next.
RUN groupadd --gid 10001 orfeas \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin orfeas \
    && install -d -o 10001 -g 10001 -m 0700 /data /models /files

# Everything is written to a volume or to /tmp, so the root file system can be read-only.
ENV HOST=0.0.0.0 \
    PORT=5000 \
    ORFEAS_DATA_DIR=/data \
    HF_HOME=/models \
    HOME=/tmp
VOLUME ["/data", "/models"]
USER 10001:10001
EXPOSE 5000
STOPSIGNAL SIGTERM
# The first start may fetch a checkpoint of many gigabytes.
HEALTHCHECK --interval=15s --timeout=5s --start-period=15m --retries=3 CMD ["/opt/orfeas/docker/healthcheck.sh"]
ENTRYPOINT ["/opt/orfeas/docker/entrypoint.sh"]
CMD ["serve"]
