// Typed reading of JavaScript objects. Every complaint is a TypeError that names the field.
#pragma once

#include <napi.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llama_steer {

/// The largest integer that a JavaScript number holds exactly, 2^53 - 1.
inline constexpr uint64_t kMaxSafeInteger = (uint64_t{1} << 53) - 1;

/// The words of an enumeration.
template <typename Enum>
using Words = std::span<const std::pair<std::string_view, Enum>>;

/// The fields of one object. Reading throws a Napi::TypeError: the callers are JavaScript methods.
class Fields {
 public:
  /// `path` names the object in complaints: "request.sampling".
  Fields(Napi::Value value, std::string path);

  bool Bool(const char* name) const;
  /// Not NaN and not infinite.
  double Finite(const char* name) const;
  /// Not NaN.
  double Number(const char* name) const;
  /// Finite as a float32 as well.
  float Float(const char* name) const;
  int32_t Int32(const char* name, int32_t min, int32_t max) const;
  uint32_t Uint32(const char* name) const;
  /// A number, exact.
  uint64_t Uint53(const char* name) const;
  /// A bigint.
  uint64_t Uint64(const char* name) const;
  std::string String(const char* name) const;
  Fields Object(const char* name) const { return {Get(name), Path(name)}; }
  /// Nothing for null.
  std::optional<Fields> ObjectOrNull(const char* name) const;
  bool IsNull(const char* name) const { return Get(name).IsNull(); }

  /// Typed arrays, copied.
  std::vector<int32_t> Int32s(const char* name) const;
  std::vector<uint32_t> Uint32s(const char* name) const;
  std::vector<float> Floats(const char* name) const;
  std::vector<uint8_t> Bytes(const char* name) const;

  /// Calls `read` with each element and its path.
  template <typename Read>
  void ForEach(const char* name, const Read& read) const {
    const Napi::Array array = Array(name);
    for (uint32_t i = 0; i < array.Length(); ++i) {
      const Napi::HandleScope scope(object_.Env());
      read(array.Get(i), Path(name) + "[" + std::to_string(i) + "]");
    }
  }

  template <typename Enum>
  Enum Word(const char* name, Words<Enum> words) const {
    return ToWord(Get(name), Path(name), words);
  }
  template <typename Enum>
  static Enum ToWord(Napi::Value value, const std::string& path, Words<Enum> words) {
    const std::string text = ToString(value, path);
    for (const auto& [word, result] : words) {
      if (word == text) return result;
    }
    throw Complaint(value, path, "a known word, not \"" + text + "\"");
  }
  static std::string ToString(Napi::Value value, const std::string& path);
  static int64_t ToSafeInteger(Napi::Value value, const std::string& path);
  /// "path: expected what".
  static Napi::TypeError Complaint(Napi::Value value, const std::string& path,
                                   const std::string& expected);
  Napi::TypeError ComplaintAt(const char* name, const std::string& expected) const {
    return Complaint(object_, Path(name), expected);
  }

 private:
  std::string Path(const char* name) const { return path_ + "." + name; }
  Napi::Value Get(const char* name) const { return object_.Get(name); }
  Napi::Array Array(const char* name) const;
  template <typename T>
  std::vector<T> TypedArray(const char* name, napi_typedarray_type type, const char* what) const;

  Napi::Object object_;
  std::string path_;
};

/// An argument that is an integer of [min, max].
int64_t IntegerArgument(Napi::Value value, const char* name, int64_t min, int64_t max);

}  // namespace llama_steer
