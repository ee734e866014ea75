#include "eval/haystack.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/fail.h"
#include "core/file.h"

namespace mneme {
namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 30;
constexpr size_t kLongLine = 400;  // bytes; a longer one is cut at the end of a sentence

// Slots: $p a person, $l a place, $t a thing, $d a description, $w when, $v what somebody does with a thing.
constexpr std::array<std::string_view, 28> kPatterns = {
    "$w the $d road to the $l was covered with wet leaves.",
    "The $p carried a $d $t to the $l and forgot about it.",
    "Nobody in the $l could say who had left the $t there.",
    "$w the $p began to $v every $t that stood in the $l.",
    "It rained on the $l, and the $p waited under the roof with a $d $t.",
    "A $d cat slept beside the $t while the $p read a letter.",
    "The windows of the $l looked out over $d fields and a slow river.",
    "$w a $d wind came up from the $l and shook the doors.",
    "The $p asked the $q for a $t, and the $q shrugged.",
    "Most people thought that the $l was too $d for a $t of that kind.",
    "There was bread on the table, and next to it lay a $d $t.",
    "$w the $q had promised to $v the $t before supper.",
    "The smell of smoke and apples hung about the $l.",
    "Some said the $t came from the $l, others that the $p had made it.",
    "The $p and the $q walked to the $l without saying a word.",
    "In the $l the lamps were lit early, for the days were $d.",
    "The old map showed a path from the $l to the $m, but no bridge.",
    "Birds gathered on the $l, and the $p counted them for a while.",
    "$w somebody will have to $v the $t, the $q said.",
    "A $d light fell through the leaves onto the $t.",
    "The $q kept a $t in a drawer and never spoke of it.",
    "Between the $l and the $m the road turned $d and narrow.",
    "The $p liked the $l best when it was $d there.",
    "Children ran past the $l, and one of them held a $t.",
    "$w the market at the $l closed, and the carts rolled home.",
    "The $p learned to $v a $t from the $q, slowly and with care.",
    "Snow lay on the $m, though the $l was already green.",
    "The clock of the $l struck, and the $q put down the $t."};
constexpr std::array<std::string_view, 24> kPeople = {
    "baker",     "captain", "teacher", "miller",   "painter",    "doctor",    "weaver",  "farmer",
    "librarian", "potter",  "singer",  "gardener", "fisher",     "carpenter", "student", "postman",
    "glazier",   "smith",   "tailor",  "shepherd", "bookseller", "watchman",  "cook",    "sailor"};
constexpr std::array<std::string_view, 24> kPlaces = {
    "harbour", "orchard", "station",   "chapel", "market square", "mill",     "lighthouse", "school",
    "library", "meadow",  "quarry",    "ferry",  "vineyard",      "workshop", "garden",     "old bridge",
    "valley",  "tavern",  "town hall", "island", "hill",          "barn",     "boathouse",  "forest"};
constexpr std::array<std::string_view, 28> kThings = {
    "kettle",      "basket",  "lantern", "violin",   "ladder", "blanket", "mirror",
    "wheelbarrow", "drum",    "chair",   "jug",      "coat",   "spade",   "notebook",
    "rope",        "saddle",  "teapot",  "umbrella", "candle", "hammer",  "cushion",
    "trunk",       "whistle", "barrel",  "compass",  "hat",    "bench",   "kite"};
constexpr std::array<std::string_view, 24> kDescriptions = {
    "quiet", "narrow", "bright", "heavy",   "grey",   "warm", "crooked", "pale",
    "dusty", "broad",  "gentle", "cold",    "simple", "worn", "green",   "soft",
    "small", "famous", "lonely", "strange", "fine",   "dark", "rusty",   "plain"};
constexpr std::array<std::string_view, 16> kTimes = {
    "In the morning",   "Late in the evening", "On some days",    "After the harvest",
    "Before sunrise",   "That winter",         "Years later",     "At the end of the week",
    "During the feast", "When the bells rang", "Around noon",     "Every spring",
    "Now and then",     "Once in a while",     "After long rain", "Towards nightfall"};
constexpr std::array<std::string_view, 12> kVerbs = {"mend",  "paint", "polish", "sell", "carry", "draw",
                                                     "clean", "copy",  "move",   "hide", "weigh", "repair"};

template <size_t N>
std::string_view pick(Pcg64& random, const std::array<std::string_view, N>& words) {
  return words[random.below(N)];
}

std::string_view word_for(char slot, Pcg64& random) {
  switch (slot) {
    case 'p':
    case 'q':
      return pick(random, kPeople);
    case 'l':
    case 'm':
      return pick(random, kPlaces);
    case 't':
      return pick(random, kThings);
    case 'd':
      return pick(random, kDescriptions);
    case 'w':
      return pick(random, kTimes);
    default:
      return pick(random, kVerbs);
  }
}

bool blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\f\v") == std::string_view::npos;
}

/// Adds `line` in parts of at most about kLongLine bytes.
void add_line(std::string_view line, std::vector<std::string>& lines) {
  while (line.size() > kLongLine) {
    size_t cut = line.rfind(". ", kLongLine);
    if (cut == std::string_view::npos) cut = line.rfind(' ', kLongLine);
    if (cut == std::string_view::npos || cut == 0) cut = line.find(' ', kLongLine);
    if (cut == std::string_view::npos) break;
    if (line[cut] == '.') ++cut;
    if (!blank(line.substr(0, cut))) lines.emplace_back(line.substr(0, cut));
    line.remove_prefix(cut + 1);
  }
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (!blank(line)) lines.emplace_back(line);
}

}  // namespace

Haystack::Haystack(uint64_t seed) : random_(seed) {}

Haystack::Haystack(const std::filesystem::path& file, uint64_t seed) : random_(seed) {
  const std::string text = read_text_file(file, kMostBytes);
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    add_line(rest.substr(0, end), lines_);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  require(!lines_.empty(), ErrorCode::invalid_argument, "{} has no text in it", file.string());
  if (seed != 0) at_ = random_.below(lines_.size());
}

std::string Haystack::sentence() {
  const std::string_view pattern = pick(random_, kPatterns);
  // A slot that comes twice means the same word: "the $q shrugged".
  std::array<std::string_view, 128> known{};
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '$') {
      out += pattern[i];
      continue;
    }
    const char slot = pattern[++i];
    std::string_view& word = known[static_cast<size_t>(slot)];
    const auto taken = [&](char other) { return known[static_cast<size_t>(other)] == word; };
    if (word.empty()) {
      do word = word_for(slot, random_);
      while ((slot == 'q' && taken('p')) || (slot == 'm' && taken('l')));
    }
    out += word;
  }
  return out;
}

std::string Haystack::next() {
  if (lines_.empty()) return sentence();
  std::string line = lines_[at_];
  at_ = (at_ + 1) % lines_.size();
  return line;
}

}  // namespace mneme
