// Amounts of memory as people type them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace mneme::cli {

/// "4096", "512M", "1.5G", "64 MiB": K, M, G, T are 1000 each time, Ki, Mi, Gi, Ti 1024; a B may follow. ""
/// is 0. Throws UsageError that names `option`.
uint64_t size_argument(const std::string& text, std::string_view option);

}  // namespace mneme::cli
