#include "engine/sha256.h"

#include <gtest/gtest.h>

#include <string>

namespace llama_steer {
namespace {

std::string Hex(const Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string HashOf(const std::string& text, size_t piece) {
  Sha256 hash;
  for (size_t i = 0; i < text.size(); i += piece) {
    hash.Update(text.data() + i, std::min(piece, text.size() - i));
  }
  return Hex(hash.Finish());
}

// The examples of FIPS 180-4 and NIST's one million "a".
TEST(Sha256, HashesThePublishedExamples) {
  EXPECT_EQ(HashOf("", 1), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(HashOf("abc", 1), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(HashOf("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 7),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(HashOf(std::string(1000000, 'a'), 4096),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnHowTheInputIsCut) {
  for (size_t size = 0; size < 200; ++size) {
    const std::string text(size, 'x');
    EXPECT_EQ(HashOf(text, 1), HashOf(text, 1000)) << size;
    EXPECT_EQ(HashOf(text, 3), HashOf(text, 64)) << size;
  }
}

}  // namespace
}  // namespace llama_steer
