// A fixture that runs its tests once for each instruction set of the CPU.
#pragma once
#include <gtest/gtest.h>

#include <cctype>
#include <string>

#include "simd/isa.h"

namespace mneme {

class OnEveryIsa : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    before_ = active_isa();
    set_active_isa(GetParam());
  }
  void TearDown() override { set_active_isa(before_); }

 private:
  Isa before_ = Isa::portable;
};

/// Name of a test case: the instruction set, letters and digits only.
inline std::string isa_name(const testing::TestParamInfo<Isa>& info) {
  std::string name(to_string(info.param));
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
}

}  // namespace mneme
