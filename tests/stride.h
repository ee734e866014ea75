// How densely a long test walks through its cases. The release build looks at all of them; a build under
// sanitizers, whose arithmetic is 10 to 40 times slower, looks for bad reads and undefined arithmetic, which
// one in `kStride` shows as well.
#pragma once

namespace mneme {

#ifdef MNEME_SANITIZED
inline constexpr int kStride = 8;
#else
inline constexpr int kStride = 1;
#endif

}  // namespace mneme
