// A look at the blocks that sparse mixers choose, and a way to replace them: for tests that compare the
// engine with the trainer, where a rounding error may turn a near tie. A sequence without a hook pays one
// null check for each choice.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mneme {

/// Called from the threads of a pass, several at a time, for different heads or positions.
class BlockHook {
 public:
  virtual ~BlockHook() = default;
  /// What query head `head` of mixer `mixer` (counted over all layers) at `position` (sink tokens of the
  /// model count) is about to see: numbers of blocks, ascending, its own last. May be changed to others of at
  /// most as many, ascending, the own block last. With MixerConfig::shared it is asked once, for the first
  /// head of a group.
  virtual void chosen(size_t mixer, int64_t head, int64_t position, std::vector<uint32_t>& blocks) = 0;
};

}  // namespace mneme
