// Twins of the tensor core instructions.
#include <cuda_bf16.h>

#include <bit>
#include <cmath>

#include "emulator/device_functions.h"

namespace llama_steer::cuda::emulator {
namespace {

struct MmaOperand {
  uint32_t a[4];
  uint32_t b[2];
};

double Low(uint32_t pair) { return static_cast<double>(std::bit_cast<float>(pair << 16)); }
double High(uint32_t pair) { return static_cast<double>(std::bit_cast<float>(pair & 0xffff0000u)); }

const MmaOperand& OperandOfLane(int lane) {
  return *static_cast<const MmaOperand*>(OperandOf(lane));
}

/// Σ over 16 k of A[row][k] · B[k][column], row below 16, column below 8.
double DotOf(int row, int column) {
  double sum = 0.0;
  const int upper = row >= 8 ? 1 : 0;
  for (int c = 0; c < 4; ++c) {
    const MmaOperand& a = OperandOfLane(row % 8 * 4 + c);
    const MmaOperand& b = OperandOfLane(column * 4 + c);
    sum += Low(a.a[upper]) * Low(b.b[0]) + High(a.a[upper]) * High(b.b[0]);
    sum += Low(a.a[upper + 2]) * Low(b.b[1]) + High(a.a[upper + 2]) * High(b.b[1]);
  }
  return sum;
}

}  // namespace

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaOperand own = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  WarpExchange(0xffffffffu, &own, sizeof(own));
  const int g = Lane() / 4;
  const int c = Lane() % 4;
  for (int i = 0; i < 4; ++i) {
    d[i] = static_cast<float>(static_cast<double>(d[i]) + DotOf(g + i / 2 * 8, 2 * c + i % 2));
  }
}

uint32_t MultiplyBf16(uint32_t a, uint32_t b) {
  const auto product = [](double x, double y) {
    const auto exact = static_cast<float>(x * y);  // 16 bits of mantissa: no rounding yet
    return static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(exact)));
  };
  return product(Low(a), Low(b)) | product(High(a), High(b)) << 16;
}

void LoadMatrix4Transposed(uint32_t (&out)[4], const void* row) {
  // The rows are read before the lanes meet: the instruction reads them at once.
  uint16_t own[8];
  std::memcpy(own, row, sizeof(own));
  WarpExchange(0xffffffffu, own, sizeof(own));
  const int g = Lane() / 4;
  const int c = Lane() % 4;
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint32_t pair = 0;
    for (int half = 0; half < 2; ++half) {
      uint16_t from[8];
      std::memcpy(from, OperandOf(8 * matrix + 2 * c + half), sizeof(from));
      pair |= static_cast<uint32_t>(from[g]) << (16 * half);
    }
    out[matrix] = pair;
  }
}

float Exp2Approx(float x) {
  const float y = std::exp2(x);
  return std::fabs(y) < 0x1p-126f ? 0.0f : y;
}

}  // namespace llama_steer::cuda::emulator
