#include "binding/fields.h"

#include <cmath>
#include <limits>

namespace llama_steer {

Fields::Fields(Napi::Value value, std::string path) : path_(std::move(path)) {
  if (!value.IsObject() || value.IsFunction()) throw Complaint(value, path_, "an object");
  object_ = value.As<Napi::Object>();
}

Napi::TypeError Fields::Complaint(Napi::Value value, const std::string& path,
                                  const std::string& expected) {
  return Napi::TypeError::New(value.Env(), path + ": expected " + expected);
}

bool Fields::Bool(const char* name) const {
  const Napi::Value value = Get(name);
  if (!value.IsBoolean()) throw Complaint(value, Path(name), "a boolean");
  return value.As<Napi::Boolean>().Value();
}

double Fields::Number(const char* name) const {
  const Napi::Value value = Get(name);
  if (!value.IsNumber()) throw Complaint(value, Path(name), "a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (std::isnan(number)) throw Complaint(value, Path(name), "a number, not NaN");
  return number;
}

double Fields::Finite(const char* name) const {
  const double number = Number(name);
  if (!std::isfinite(number)) throw Complaint(Get(name), Path(name), "a finite number");
  return number;
}

float Fields::Float(const char* name) const {
  const double number = Finite(name);
  if (std::abs(number) > std::numeric_limits<float>::max()) {
    throw Complaint(Get(name), Path(name), "a number that float32 holds");
  }
  return static_cast<float>(number);
}

int64_t Fields::ToSafeInteger(Napi::Value value, const std::string& path) {
  constexpr double kLimit = static_cast<double>(kMaxSafeInteger);
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  // Written so that NaN is refused too.
  if (!(std::abs(number) <= kLimit) || number != std::trunc(number)) {
    throw Complaint(value, path, "an integer");
  }
  return static_cast<int64_t>(number);
}

int64_t IntegerArgument(Napi::Value value, const char* name, int64_t min, int64_t max) {
  const int64_t number = Fields::ToSafeInteger(value, name);
  if (number < min || number > max) {
    throw Fields::Complaint(
        value, name, "an integer from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return number;
}

int32_t Fields::Int32(const char* name, int32_t min, int32_t max) const {
  return static_cast<int32_t>(IntegerArgument(Get(name), Path(name).c_str(), min, max));
}

uint32_t Fields::Uint32(const char* name) const {
  return static_cast<uint32_t>(IntegerArgument(Get(name), Path(name).c_str(), 0, UINT32_MAX));
}

uint64_t Fields::Uint53(const char* name) const {
  return static_cast<uint64_t>(
      IntegerArgument(Get(name), Path(name).c_str(), 0, static_cast<int64_t>(kMaxSafeInteger)));
}

uint64_t Fields::Uint64(const char* name) const {
  const Napi::Value value = Get(name);
  bool lossless = false;
  const uint64_t number =
      value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : uint64_t{0};
  if (!lossless) throw Complaint(value, Path(name), "a bigint from 0 to 2^64 - 1");
  return number;
}

std::string Fields::ToString(Napi::Value value, const std::string& path) {
  if (!value.IsString()) throw Complaint(value, path, "a string");
  return value.As<Napi::String>().Utf8Value();
}

std::string Fields::String(const char* name) const { return ToString(Get(name), Path(name)); }

std::optional<Fields> Fields::ObjectOrNull(const char* name) const {
  if (IsNull(name)) return std::nullopt;
  return Object(name);
}

Napi::Array Fields::Array(const char* name) const {
  const Napi::Value value = Get(name);
  if (!value.IsArray()) throw Complaint(value, Path(name), "an array");
  return value.As<Napi::Array>();
}

template <typename T>
std::vector<T> Fields::TypedArray(const char* name, napi_typedarray_type type,
                                  const char* what) const {
  const Napi::Value value = Get(name);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    throw Complaint(value, Path(name), what);
  }
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  // A detached array has length 0 and may have no data.
  if (array.ElementLength() == 0) return {};
  return {array.Data(), array.Data() + array.ElementLength()};
}

std::vector<int32_t> Fields::Int32s(const char* name) const {
  return TypedArray<int32_t>(name, napi_int32_array, "an Int32Array");
}

std::vector<uint32_t> Fields::Uint32s(const char* name) const {
  return TypedArray<uint32_t>(name, napi_uint32_array, "a Uint32Array");
}

std::vector<float> Fields::Floats(const char* name) const {
  return TypedArray<float>(name, napi_float32_array, "a Float32Array");
}

std::vector<uint8_t> Fields::Bytes(const char* name) const {
  return TypedArray<uint8_t>(name, napi_uint8_array, "a Uint8Array");
}

}  // namespace llama_steer
