# One image for every process: the command says which one it is.
FROM python:3.11-slim

RUN useradd --system --uid 10001 --no-create-home common-services \
    && install -d -o common-services -g common-services -m 0700 /data

WORKDIR /app
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement requirements.lock

COPY gen/buf gen/buf
COPY gen/commonservices gen/commonservices
COPY envoy envoy
COPY server server
RUN python -m compileall -q gen server

USER common-services
ENV PYTHONUNBUFFERED=1
VOLUME /data
ENTRYPOINT ["python", "-m", "server"]
