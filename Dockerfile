# syntax=docker/dockerfile:1
# Target `cpu` (the default): the service on the CPU backend, as an unprivileged user, without a
# compiler. Target `cuda`: the same with the CUDA backend beside the addon.
# The base images are build arguments, so that a mirrored or hardened Debian can be used. The C library
# of the build images must not be newer than the runtime image's.
ARG BUILD_IMAGE=docker.io/library/node:20-bookworm
ARG CUDA_BUILD_IMAGE=docker.io/library/debian:bookworm
ARG RUNTIME_IMAGE=docker.io/library/node:20-bookworm-slim

FROM ${BUILD_IMAGE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ make cmake ninja-build libhwy-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
# Dependencies first: this layer changes only with the lock file.
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY . .
RUN npm run build:addon \
 && npm run build \
 && npm prune --omit=dev --ignore-scripts \
 # The package `tokenizers` brings binaries of every platform; keep this one's.
 && find node_modules/tokenizers -name '*.node' \
      ! -name "tokenizers.linux-$(node -p process.arch)-gnu.node" -delete \
 # Only needed to build the addon.
 && rm -rf node_modules/cmake-js node_modules/node-addon-api node_modules/node-api-headers

FROM ${RUNTIME_IMAGE} AS cpu
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libhwy1 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY --from=build /app/proto ./proto
COPY --from=build /app/src/study/report/page ./src/study/report/page
# The judge of sentiment; the judges of code are Python programs, and not in here.
COPY --from=build /app/models/sentiment-judge ./models/sentiment-judge
COPY --from=build /app/out/addon/Release/llama_steer.node ./out/addon/Release/llama_steer.node
# Vectors are written here; a volume, because the root may be read-only.
RUN install --directory --owner=10001 --group=10001 /registry
VOLUME /registry
ENV NODE_ENV=production LLAMA_STEER_REGISTRY=/registry
# 50051 gRPC, 9464 HTTP (/metrics, /livez, /readyz, /startupz)
EXPOSE 50051 9464
USER 10001:10001
# Nothing but /registry is written to: run with a read-only root, mount the model at /model.
ENTRYPOINT ["node", "dist/cli/main.js"]
CMD ["serve", "--model", "/model", "--listen", "0.0.0.0:50051", "--http", "0.0.0.0:9464", "--insecure-listen"]

# The plugin library of the CUDA backend. The runtime library is linked in; the driver comes with the
# node, and nothing else of CUDA is needed to run.
FROM ${CUDA_BUILD_IMAGE} AS build-cuda
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ make cmake ninja-build python3-venv ca-certificates \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
# NVIDIA's compiler and headers from PyPI, and a CMake that knows them: the same as in CI.
COPY scripts/cuda-toolkit.sh ./scripts/
RUN scripts/cuda-toolkit.sh
# As CMAKE_CUDA_ARCHITECTURES; empty: every GPU from compute capability 8.0 on.
ARG CUDA_ARCHITECTURES=
COPY CMakeLists.txt ./
COPY cmake ./cmake
COPY addon ./addon
COPY cuda ./cuda
RUN toolkit="$(scripts/cuda-toolkit.sh)" \
 && export PATH="/app/out/cuda-toolkit/bin:${PATH}" \
 && cmake -S . -B out/cuda -G Ninja -DLLAMA_STEER_ADDON=OFF -DLLAMA_STEER_CUDA=ON \
      -DLLAMA_STEER_CUDA_TOOLKIT="${toolkit}" \
      ${CUDA_ARCHITECTURES:+"-DCMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES}"} \
 && cmake --build out/cuda --target llama_steer_cuda

FROM cpu AS cuda
COPY --from=build-cuda /app/out/cuda/libllama_steer_cuda.so ./out/addon/Release/
# Asks NVIDIA's container runtime for the driver.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM cpu
