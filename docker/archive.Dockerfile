# Orthanc with DICOMweb as Debian has it, for compose.yaml.
FROM debian:bookworm-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends curl orthanc orthanc-dicomweb \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /var/lib/orthanc/db && chown -R 1000 /var/lib/orthanc

COPY docker/orthanc.json /etc/orthanc/proxyprompt.json
USER 1000
EXPOSE 8042 4242
VOLUME ["/var/lib/orthanc/db"]
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=10 \
    CMD ["curl", "-fsS", "http://127.0.0.1:8042/dicom-web/studies?limit=1"]
ENTRYPOINT ["Orthanc", "/etc/orthanc/proxyprompt.json"]
