# One image for push, pull, both and the stand-in: chosen by CVAGENT_MODE or by the command.
#   docker build -t cvagent .
# Where TLS is intercepted: docker build --secret id=ca,src=/path/to/ca.pem -t cvagent .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY requirements/run.txt requirements/
# Kept apart from the source, so that a change of the source does not fetch the libraries again.
RUN --mount=type=secret,id=ca \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv /opt/cvagent && \
    /opt/cvagent/bin/pip install --no-cache-dir --require-hashes -r requirements/run.txt
COPY requirements/build.txt requirements/
COPY pyproject.toml README.md LICENSE ./
COPY cvagent cvagent
RUN --mount=type=secret,id=ca \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv /opt/build && \
    /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt && \
    /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /tmp/wheel . && \
    /opt/cvagent/bin/pip install --no-cache-dir --no-deps /tmp/wheel/cvagent-*.whl && \
    cd /opt/cvagent && rm -rf bin/pip* lib/python3*/site-packages/pip lib/python3*/site-packages/pip-* \
        lib/python3*/site-packages/setuptools* lib/python3*/site-packages/pkg_resources \
        lib/python3*/site-packages/_distutils_hack lib/python3*/site-packages/distutils-precedence.pth

FROM ${BASE}
# Of which commit it is: make image says.
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cvagent" \
      org.opencontainers.image.description="Tells Arista CloudVision which Slurm job runs where" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/cvagent /opt/cvagent
# A volume that is mounted here is the agent's to write: for a store in a file.
RUN install -d -o 65532 -g 65532 /var/lib/cvagent
ENV PATH=/opt/cvagent/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Writes nothing: a read-only root file system will do. To reach the Docker socket, add its group: --group-add.
USER 65532:65532
EXPOSE 9410
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["python3", "-m", "cvagent.healthz"]
ENTRYPOINT ["python3", "-m", "cvagent"]
