#include "files/torch_pickle.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>

#include "core/fail.h"
#include "files/printable.h"

namespace mneme {
namespace {

constexpr uint64_t kMaxPickle = uint64_t{32} << 20;
constexpr size_t kMaxObjects = 2'000'000;
constexpr size_t kMaxMarks = 64;  // torch nests four deep
constexpr size_t kMaxRank = 8;
constexpr size_t kMaxName = 1024;

enum class Role { ordered_dict, rebuild_tensor, rebuild_parameter, storage_type };

struct Global {
  std::string_view module, name;
  Role role;
  DType type = DType::f32;  // of a storage
};

constexpr std::array<Global, 12> kGlobals{{
    {"collections", "OrderedDict", Role::ordered_dict},
    {"torch._utils", "_rebuild_tensor_v2", Role::rebuild_tensor},
    {"torch._utils", "_rebuild_parameter", Role::rebuild_parameter},
    {"torch", "FloatStorage", Role::storage_type, DType::f32},
    {"torch", "HalfStorage", Role::storage_type, DType::f16},
    {"torch", "BFloat16Storage", Role::storage_type, DType::bf16},
    {"torch", "DoubleStorage", Role::storage_type, DType::f64},
    {"torch", "LongStorage", Role::storage_type, DType::i64},
    {"torch", "IntStorage", Role::storage_type, DType::i32},
    {"torch", "ShortStorage", Role::storage_type, DType::i16},
    {"torch", "CharStorage", Role::storage_type, DType::i8},
    {"torch", "ByteStorage", Role::storage_type, DType::u8},
}};

enum class Kind { none, boolean, integer, real, text, tuple, list, dict, global, storage, tensor };

constexpr std::array<std::string_view, 11> kKindNames{"None",   "a boolean", "a number", "a number",
                                                      "a text", "a tuple",   "a list",   "a dictionary",
                                                      "a type", "a storage", "a tensor"};

using Ref = uint32_t;  // index of an object

struct Object {
  Kind kind = Kind::none;
  bool ordered = false;         // of a dict: made by OrderedDict()
  int64_t number = 0;           // integer, boolean; of global, storage, tensor: index in its table
  std::string_view text;        // a view into the pickle
  std::vector<Ref> items = {};  // tuple, list; of a dict: key, value, key, value...
};

struct Storage {
  DType type;
  std::string_view key;
  uint64_t values;
};

struct Tensor {
  size_t storage;
  uint64_t first;  // in values
  std::vector<uint64_t> shape, strides;
};

class Machine {
 public:
  Machine(Bytes bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  std::vector<PickledTensor> run() {
    require(bytes_.size() <= kMaxPickle, ErrorCode::limit,
            "{}: its pickle has {} bytes; a list of tensors needs at most {}", file_, bytes_.size(),
            kMaxPickle);
    check(number<uint8_t>() == 0x80, "its pickle does not begin with a protocol number");
    const auto protocol = number<uint8_t>();
    require(protocol == 2, ErrorCode::unsupported,
            "{}: its pickle has protocol {}; torch.save writes protocol 2 unless told otherwise", file_,
            protocol);
    while (step()) {
    }
    return finish();
  }

 private:
  Bytes bytes_;
  const std::string& file_;
  size_t at_ = 0;
  std::vector<Object> objects_;
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Ref> memo_;
  std::vector<Storage> storages_;
  std::vector<Tensor> tensors_;

  template <class... Args>
  void check(bool ok, fmt::format_string<Args...> format, Args&&... args) const {
    if (!ok) [[unlikely]]
      fail(ErrorCode::corrupt, "{}: {} (byte {} of its pickle)", file_,
           fmt::format(format, std::forward<Args>(args)...), at_);
  }
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::unsupported,
         "{}: {}; only tensors are read from a torch checkpoint, and nothing in it is executed", file_,
         fmt::format(format, std::forward<Args>(args)...));
  }

  // Reading -------------------------------------------------------------------------------------------------

  std::string_view take(uint64_t size) {
    check(size <= bytes_.size() - at_, "it ends in the middle of an operation");
    const char* from = reinterpret_cast<const char*>(bytes_.data()) + at_;
    at_ += size;
    return {from, static_cast<size_t>(size)};
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view line() {
    const char* from = reinterpret_cast<const char*>(bytes_.data()) + at_;
    const void* end = std::memchr(from, '\n', bytes_.size() - at_);
    check(end != nullptr, "a name has no end");
    const std::string_view out = take(static_cast<size_t>(static_cast<const char*>(end) - from));
    ++at_;
    return out;
  }

  // The stack -----------------------------------------------------------------------------------------------

  void push(Object object) {
    require(objects_.size() < kMaxObjects, ErrorCode::limit, "{}: its pickle makes more than {} objects",
            file_, kMaxObjects);
    objects_.push_back(std::move(object));
    stack_.push_back(static_cast<Ref>(objects_.size() - 1));
  }
  void push(Kind kind, int64_t number = 0) { push(Object{kind, false, number, {}, {}}); }
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Ref pop() {
    check(stack_.size() > floor(), "an operation takes a value from an empty stack");
    const Ref top = stack_.back();
    stack_.pop_back();
    return top;
  }
  Ref top() const {
    check(stack_.size() > floor(), "an operation needs a value, but the stack is empty");
    return stack_.back();
  }
  std::vector<Ref> pop_to_mark() {
    check(!marks_.empty(), "an operation needs a mark, but none is set");
    const auto from = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> out(from, stack_.end());
    stack_.erase(from, stack_.end());
    marks_.pop_back();
    return out;
  }
  void push_tuple(size_t count) {
    check(stack_.size() - floor() >= count, "a tuple of {} is made from fewer values", count);
    Object out{Kind::tuple, false, 0, {}, {stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end()}};
    stack_.resize(stack_.size() - count);
    push(std::move(out));
  }
  void put(uint32_t slot) { memo_[slot] = top(); }
  void get(uint32_t slot) {
    const auto it = memo_.find(slot);
    check(it != memo_.end(), "memo {} is used before it is set", slot);
    stack_.push_back(it->second);
  }

  // Operations ----------------------------------------------------------------------------------------------

  /// Executes one opcode; false at STOP.
  bool step() {
    const auto op = number<uint8_t>();
    switch (op) {
      case '(':
        check(marks_.size() < kMaxMarks, "marks nest deeper than {}", kMaxMarks);
        marks_.push_back(stack_.size());
        return true;
      case '.':
        return false;
      case 'q':
        put(number<uint8_t>());
        return true;
      case 'r':
        put(number<uint32_t>());
        return true;
      case 'h':
        get(number<uint8_t>());
        return true;
      case 'j':
        get(number<uint32_t>());
        return true;
      case 'c':
        global();
        return true;
      case 'Q':
        persistent_id();
        return true;
      case 'R':
        reduce();
        return true;
      case 'b':
        build();
        return true;
      default:
        if (!push_scalar(op) && !build_container(op))
          refuse("operation 0x{:02x} at byte {} of its pickle is none that a list of tensors needs", op,
                 at_ - 1);
        return true;
    }
  }

  bool push_scalar(uint8_t op) {
    switch (op) {
      case 'N':
        push(Kind::none);
        return true;
      case 0x88:
      case 0x89:
        push(Kind::boolean, op == 0x88);
        return true;
      case 'J':
        push(Kind::integer, number<int32_t>());
        return true;
      case 'K':
        push(Kind::integer, number<uint8_t>());
        return true;
      case 'M':
        push(Kind::integer, number<uint16_t>());
        return true;
      case 0x8a:
        push(Kind::integer, long_integer());
        return true;
      case 'G':
        take(8);
        push(Kind::real);
        return true;
      case 'X': {
        const auto size = number<uint32_t>();
        push(Object{Kind::text, false, 0, take(size), {}});
        return true;
      }
      default:
        return false;
    }
  }

  // LONG1: little-endian two's complement of 0 to 255 bytes.
  int64_t long_integer() {
    const std::string_view digits = take(number<uint8_t>());
    check(digits.size() <= 8, "a number has {} bytes; sizes have at most 8", digits.size());
    uint64_t value = 0;
    for (size_t i = 0; i < digits.size(); ++i) value |= uint64_t{static_cast<uint8_t>(digits[i])} << 8 * i;
    const unsigned bits = static_cast<unsigned>(digits.size()) * 8;
    if (bits > 0 && bits < 64 && (value >> (bits - 1) & 1)) value |= ~uint64_t{0} << bits;
    return static_cast<int64_t>(value);
  }

  bool build_container(uint8_t op) {
    switch (op) {
      case ')':
        push(Kind::tuple);
        return true;
      case ']':
        push(Kind::list);
        return true;
      case '}':
        push(Kind::dict);
        return true;
      case 0x85:
      case 0x86:
      case 0x87:
        push_tuple(op - 0x84u);
        return true;
      case 't': {
        Object out{Kind::tuple, false, 0, {}, pop_to_mark()};
        push(std::move(out));
        return true;
      }
      case 'a':
        extend(Kind::list, {pop()});
        return true;
      case 'e':
        extend(Kind::list, pop_to_mark());
        return true;
      case 's': {
        const Ref value = pop(), key = pop();
        extend(Kind::dict, {key, value});
        return true;
      }
      case 'u':
        extend(Kind::dict, pop_to_mark());
        return true;
      default:
        return false;
    }
  }

  void extend(Kind kind, const std::vector<Ref>& items) {
    Object& target = objects_[top()];
    check(target.kind == kind, "items are added to {}", kKindNames[static_cast<size_t>(target.kind)]);
    check(kind != Kind::dict || items.size() % 2 == 0, "a dictionary gets a key without a value");
    target.items.insert(target.items.end(), items.begin(), items.end());
  }

  void global() {
    const std::string_view module = line(), name = line();
    for (size_t i = 0; i < kGlobals.size(); ++i)
      if (kGlobals[i].module == module && kGlobals[i].name == name)
        return push(Kind::global, static_cast<int64_t>(i));
    refuse("its pickle asks for \"{}.{}\"", printable(module), printable(name));
  }

  const Global* as_global(Ref ref) const {
    const Object& object = objects_[ref];
    return object.kind == Kind::global ? &kGlobals[static_cast<size_t>(object.number)] : nullptr;
  }

  uint64_t as_size(Ref ref, std::string_view what) const {
    const Object& object = objects_[ref];
    check(object.kind == Kind::integer && object.number >= 0, "{} is not a whole number from 0", what);
    return static_cast<uint64_t>(object.number);
  }

  std::vector<uint64_t> as_sizes(Ref ref, std::string_view what) const {
    const Object& object = objects_[ref];
    check(object.kind == Kind::tuple && object.items.size() <= kMaxRank,
          "{} is not a tuple of at most {} numbers", what, kMaxRank);
    std::vector<uint64_t> out;
    for (const Ref item : object.items) out.push_back(as_size(item, what));
    return out;
  }

  // ("storage", type, key, device, number of values); the device does not matter.
  void persistent_id() {
    const Object& id = objects_[pop()];
    check(id.kind == Kind::tuple && id.items.size() == 5 && objects_[id.items[0]].text == "storage" &&
              objects_[id.items[2]].kind == Kind::text,
          "a persistent id is not that of a storage");
    const Global* type = as_global(id.items[1]);
    check(type != nullptr && type->role == Role::storage_type, "a storage has no type");
    const std::string_view key = objects_[id.items[2]].text;
    check(!key.empty() && key.size() <= kMaxName, "a storage's key must have 1 to {} bytes", kMaxName);
    storages_.push_back({type->type, key, as_size(id.items[4], "the size of a storage")});
    push(Kind::storage, static_cast<int64_t>(storages_.size() - 1));
  }

  void reduce() {
    const Ref arguments = pop(), function = pop();
    const Object& tuple = objects_[arguments];
    const Global* global = as_global(function);
    check(global != nullptr && tuple.kind == Kind::tuple, "a call needs a function and a tuple");
    const std::vector<Ref> items = tuple.items;  // a copy: push() may move the objects
    switch (global->role) {
      case Role::ordered_dict:
        check(items.empty(), "OrderedDict is called with arguments");
        push(Object{Kind::dict, true, 0, {}, {}});
        return;
      case Role::rebuild_tensor:
        rebuild_tensor(items);
        return;
      case Role::rebuild_parameter:
        check(items.size() == 3 && objects_[items[0]].kind == Kind::tensor,
              "_rebuild_parameter is not called with a tensor");
        stack_.push_back(items[0]);
        return;
      case Role::storage_type:
        refuse("its pickle calls torch.{}", global->name);
    }
  }

  void rebuild_tensor(const std::vector<Ref>& items) {
    check((items.size() == 6 || items.size() == 7) && objects_[items[0]].kind == Kind::storage,
          "_rebuild_tensor_v2 is not called with a storage and its five other arguments");
    const Object& hooks = objects_[items[5]];
    if (hooks.kind != Kind::none && (hooks.kind != Kind::dict || !hooks.items.empty()))
      refuse("a tensor has hooks");
    Tensor tensor{static_cast<size_t>(objects_[items[0]].number), as_size(items[1], "the offset of a tensor"),
                  as_sizes(items[2], "the shape of a tensor"), as_sizes(items[3], "the stride of a tensor")};
    check(tensor.shape.size() == tensor.strides.size(), "a tensor has {} dimensions and {} strides",
          tensor.shape.size(), tensor.strides.size());
    tensors_.push_back(std::move(tensor));
    push(Kind::tensor, static_cast<int64_t>(tensors_.size() - 1));
  }

  // A state dict's _metadata attribute (versions of its modules), which nothing needs.
  void build() {
    const Object& state = objects_[pop()];
    const Object& target = objects_[top()];
    check(target.kind == Kind::dict && target.ordered && state.kind == Kind::dict,
          "attributes are set on something other than an OrderedDict");
  }

  // The result ----------------------------------------------------------------------------------------------

  std::vector<PickledTensor> finish() {
    check(at_ == bytes_.size(), "{} bytes follow its end", bytes_.size() - at_);
    check(stack_.size() == 1 && marks_.empty(), "it ends with {} values instead of one", stack_.size());
    const Object& result = objects_[stack_.front()];
    if (result.kind != Kind::dict)
      refuse("it holds {} instead of a dictionary of tensors", kKindNames[static_cast<size_t>(result.kind)]);
    std::vector<PickledTensor> out;
    std::set<std::string_view> names;
    for (size_t i = 0; i < result.items.size(); i += 2) {
      const Object& key = objects_[result.items[i]];
      const Object& value = objects_[result.items[i + 1]];
      if (key.kind != Kind::text)
        refuse("a key of its dictionary is {}", kKindNames[static_cast<size_t>(key.kind)]);
      const std::string shown = printable(key.text);
      check(!key.text.empty() && key.text.size() <= kMaxName && key.text.find('\0') == std::string_view::npos,
            "a tensor's name must have 1 to {} bytes and no NUL", kMaxName);
      check(names.insert(key.text).second, "two tensors are named \"{}\"", shown);
      if (value.kind != Kind::tensor)
        refuse("\"{}\" is {}, not a tensor", shown, kKindNames[static_cast<size_t>(value.kind)]);
      out.push_back(describe(key.text, shown, tensors_[static_cast<size_t>(value.number)]));
    }
    return out;
  }

  PickledTensor describe(std::string_view name, const std::string& shown, const Tensor& tensor) const {
    const Storage& storage = storages_[tensor.storage];
    const uint64_t element = dtype_info(storage.type).block_bytes;
    uint64_t values = 1;
    uint64_t last = 0;  // of the values that it spans
    bool contiguous = true;
    for (size_t i = tensor.shape.size(); i-- > 0;) {
      check(tensor.shape[i] > 0, "tensor \"{}\" has a dimension of zero", shown);
      contiguous &= tensor.shape[i] == 1 || tensor.strides[i] == values;
      uint64_t reach = 0;
      check(!__builtin_mul_overflow(values, tensor.shape[i], &values) &&
                !__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &reach) &&
                !__builtin_add_overflow(last, reach, &last),
            "the product of the shape of tensor \"{}\" overflows 64 bits", shown);
    }
    // (A view of fewer values than it has would let a small file ask for any amount of memory.)
    require(values - 1 <= last, ErrorCode::unsupported,
            "{}: tensor \"{}\" is a view that repeats values (strides [{}]); save it again after "
            ".contiguous()",
            file_, shown, fmt::join(tensor.strides, ", "));
    check(tensor.first < storage.values && last < storage.values - tensor.first,
          "tensor \"{}\" needs {} values from {} on, but its storage has {}", shown, last + 1, tensor.first,
          storage.values);
    PickledTensor out;
    check(!__builtin_mul_overflow(storage.values, element, &out.storage_bytes),
          "the size of the storage of tensor \"{}\" overflows 64 bits", shown);
    out.info = {std::string(name), storage.type, tensor.shape, values * element};
    out.storage = storage.key;
    out.offset = tensor.first * element;
    out.extent = (last + 1) * element;
    if (!contiguous) out.strides = tensor.strides;
    return out;
  }
};

}  // namespace

std::vector<PickledTensor> read_torch_pickle(Bytes pickle, const std::string& file) {
  return Machine(pickle, file).run();
}

}  // namespace mneme
