#pragma once
namespace mneme {
inline constexpr const char* kVersion = "0.1.0";
}  // namespace mneme
