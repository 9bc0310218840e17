#include "weights/tensor_pickle.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "core/error.h"
#include "weights/dtypes.h"

namespace strobe::weights {
namespace {

constexpr size_t kMaxTextShown = 200;

// Names of the pickle format's opcodes.
enum Opcode : unsigned char {
  kMarkOp = '(',
  kStop = '.',
  kBinFloat = 'G',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNoneOp = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobalOp = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTupleOp = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
};

enum class Kind {
  kNone,
  kBool,
  kInteger,
  kFloat,
  kString,
  kTuple,
  kList,
  kDict,
  kOrderedDictClass,
  kRebuildTensor,
  kStorageClass,
  kStorage,
  kTensor
};

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "a bool";
    case Kind::kInteger:
      return "an integer";
    case Kind::kFloat:
      return "a float";
    case Kind::kString:
      return "a string";
    case Kind::kTuple:
      return "a tuple";
    case Kind::kList:
      return "a list";
    case Kind::kDict:
      return "a dict";
    case Kind::kStorage:
      return "a storage";
    case Kind::kTensor:
      return "a tensor";
    default:
      return "a class or function";
  }
}

using Ref = uint32_t;  // index into the machine's values

struct Value {
  Kind kind = Kind::kNone;
  int64_t number = 0;      // integers; for storage classes and storages the index in kDtypes
  std::string_view text;   // strings; for storages the key
  std::vector<Ref> items;  // tuples, lists; dicts as key, value, key, value; tensors as the arguments of their making
};

class Machine {
 public:
  Machine(std::string_view pickle, const std::string& file) : pickle_(pickle), file_(file) {}

  std::vector<PickledTensor> run() {
    if (next<unsigned char>() != kProto || next<unsigned char>() != 2) fail("not a pickle of protocol 2");
    while (true) {
      const unsigned char opcode = next<unsigned char>();
      if (opcode == kStop) break;
      if (!push_scalar(opcode) && !push_container(opcode) && !use_memo(opcode) && !change_container(opcode)) {
        fail(fmt::format("opcode {:#04x} is not one that torch.save writes for a dict of tensors", opcode));
      }
    }
    if (stack_.size() != 1 || !marks_.empty()) fail("ends with more or less than one value");
    return collect(values_[stack_.front()]);
  }

 private:
  [[noreturn]] void fail(std::string_view message) const {
    throw WeightError(fmt::format("{}: data.pkl: {} (at byte {})", file_, message, at_));
  }

  static std::string shown(std::string_view text) { return std::string(text.substr(0, kMaxTextShown)); }

  std::string_view take(size_t size) {
    if (size > pickle_.size() - at_) fail("ends too early");
    std::string_view bytes = pickle_.substr(at_, size);
    at_ += size;
    return bytes;
  }

  template <class T>
  T next() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string_view take_line() {
    const size_t end = pickle_.find('\n', at_);
    if (end == std::string_view::npos) fail("ends too early");
    std::string_view line = take(end - at_);
    ++at_;
    return line;
  }

  void push(Value value) {
    values_.push_back(std::move(value));
    stack_.push_back(static_cast<Ref>(values_.size() - 1));
  }

  Ref pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("takes from an empty stack");
    const Ref ref = stack_.back();
    stack_.pop_back();
    return ref;
  }

  std::vector<Ref> pop_many(size_t count) {
    std::vector<Ref> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }

  std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) fail("takes to a mark that is not there");
    std::vector<Ref> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }

  Value& top(Kind kind) {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("takes from an empty stack");
    Value& value = values_[stack_.back()];
    if (value.kind != kind) fail(fmt::format("expected {}, found {}", kind_name(kind), kind_name(value.kind)));
    return value;
  }

  const Value& expect(Ref ref, Kind kind, std::string_view what) const {
    const Value& value = values_[ref];
    if (value.kind != kind) {
      fail(fmt::format("{}: expected {}, found {}", what, kind_name(kind), kind_name(value.kind)));
    }
    return value;
  }

  bool push_scalar(unsigned char opcode) {
    switch (opcode) {
      case kNoneOp:
        push({Kind::kNone});
        return true;
      case kNewTrue:
        push({Kind::kBool, 1});
        return true;
      case kNewFalse:
        push({Kind::kBool, 0});
        return true;
      case kBinInt:
        push({Kind::kInteger, next<int32_t>()});
        return true;
      case kBinInt1:
        push({Kind::kInteger, next<uint8_t>()});
        return true;
      case kBinInt2:
        push({Kind::kInteger, next<uint16_t>()});
        return true;
      case kLong1:
        push({Kind::kInteger, take_long(next<uint8_t>())});
        return true;
      case kBinFloat:
        take(8);
        push({Kind::kFloat});
        return true;
      case kBinUnicode: {
        const uint32_t size = next<uint32_t>();
        push({Kind::kString, 0, take(size)});
        return true;
      }
      case kGlobalOp: {
        const std::string_view module = take_line();
        push(find_global(module, take_line()));
        return true;
      }
      default:
        return false;
    }
  }

  bool push_container(unsigned char opcode) {
    switch (opcode) {
      case kMarkOp:
        marks_.push_back(stack_.size());
        return true;
      case kEmptyDict:
        push({Kind::kDict});
        return true;
      case kEmptyList:
        push({Kind::kList});
        return true;
      case kEmptyTuple:
        push({Kind::kTuple});
        return true;
      case kTupleOp:
        push({Kind::kTuple, 0, {}, pop_to_mark()});
        return true;
      case kTuple1:
        push({Kind::kTuple, 0, {}, pop_many(1)});
        return true;
      case kTuple2:
        push({Kind::kTuple, 0, {}, pop_many(2)});
        return true;
      case kTuple3:
        push({Kind::kTuple, 0, {}, pop_many(3)});
        return true;
      case kBinPersId:
        push(find_storage(pop()));
        return true;
      case kReduce: {
        const Ref arguments = pop();
        push(call(pop(), arguments));
        return true;
      }
      default:
        return false;
    }
  }

  bool use_memo(unsigned char opcode) {
    switch (opcode) {
      case kBinPut:
        remember(next<uint8_t>());
        return true;
      case kLongBinPut:
        remember(next<uint32_t>());
        return true;
      case kBinGet:
        recall(next<uint8_t>());
        return true;
      case kLongBinGet:
        recall(next<uint32_t>());
        return true;
      default:
        return false;
    }
  }

  bool change_container(unsigned char opcode) {
    switch (opcode) {
      case kSetItem:
        set_items(pop_many(2));
        return true;
      case kSetItems:
        set_items(pop_to_mark());
        return true;
      case kAppend:
        append(pop_many(1));
        return true;
      case kAppends:
        append(pop_to_mark());
        return true;
      case kBuild:
        // The state of an OrderedDict is `_metadata`: version numbers of modules, of no use here.
        expect(pop(), Kind::kDict, "a dict's attributes");
        top(Kind::kDict);
        return true;
      default:
        return false;
    }
  }

  int64_t take_long(size_t size) {
    if (size > 8) fail("an integer of more than 64 bits");
    const std::string_view bytes = take(size);
    uint64_t value = !bytes.empty() && (bytes.back() & 0x80) ? ~uint64_t{0} : 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    return static_cast<int64_t>(value);
  }

  Value find_global(std::string_view module, std::string_view name) const {
    if (module == "collections" && name == "OrderedDict") return {Kind::kOrderedDictClass};
    if (module == "torch._utils" && name == "_rebuild_tensor_v2") return {Kind::kRebuildTensor};
    if (module == "torch") {
      for (size_t i = 0; i < kDtypes.size(); ++i) {
        if (kDtypes[i].storage_class == name) return {Kind::kStorageClass, static_cast<int64_t>(i)};
      }
    }
    fail(fmt::format("the global {}.{} is not allowed in a dict of tensors", shown(module), shown(name)));
  }

  // ("storage", class, key, device, number of elements)
  Value find_storage(Ref id) const {
    const std::vector<Ref>& items = expect(id, Kind::kTuple, "a persistent id").items;
    if (items.size() != 5 || expect(items[0], Kind::kString, "a persistent id").text != "storage") {
      fail("a persistent id that is no storage");
    }
    Value storage{Kind::kStorage, expect(items[1], Kind::kStorageClass, "a storage's class").number};
    storage.text = expect(items[2], Kind::kString, "a storage's key").text;
    expect(items[4], Kind::kInteger, "a storage's size");
    storage.items = {items[4]};
    return storage;
  }

  Value call(Ref callable, Ref argument_tuple) const {
    const std::vector<Ref>& arguments = expect(argument_tuple, Kind::kTuple, "arguments").items;
    const Kind kind = values_[callable].kind;
    if (kind == Kind::kOrderedDictClass) {
      if (!arguments.empty()) fail("OrderedDict with arguments");
      return {Kind::kDict};
    }
    if (kind != Kind::kRebuildTensor) fail(fmt::format("calls {}", kind_name(kind)));
    if (arguments.size() < 4) fail("a tensor needs storage, offset, shape and strides");
    expect(arguments[0], Kind::kStorage, "a tensor's storage");
    expect(arguments[1], Kind::kInteger, "a tensor's offset");
    expect(arguments[2], Kind::kTuple, "a tensor's shape");
    expect(arguments[3], Kind::kTuple, "a tensor's strides");
    return {Kind::kTensor, 0, {}, {arguments.begin(), arguments.begin() + 4}};
  }

  void remember(uint32_t key) {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("remembers a value of an empty stack");
    memo_[key] = stack_.back();
  }

  void recall(uint32_t key) {
    auto found = memo_.find(key);
    if (found == memo_.end()) fail(fmt::format("recalls value {}, which was never stored", key));
    stack_.push_back(found->second);
  }

  void set_items(const std::vector<Ref>& items) {
    if (items.size() % 2 != 0) fail("a dict's key without a value");
    std::vector<Ref>& all = top(Kind::kDict).items;
    all.insert(all.end(), items.begin(), items.end());
  }

  void append(const std::vector<Ref>& items) {
    std::vector<Ref>& all = top(Kind::kList).items;
    all.insert(all.end(), items.begin(), items.end());
  }

  std::vector<int64_t> integers(Ref tuple, std::string_view what) const {
    const std::vector<Ref>& items = values_[tuple].items;
    if (items.size() > kMaxAxes) fail(fmt::format("{}: more than {} axes", what, kMaxAxes));
    std::vector<int64_t> numbers;
    for (Ref item : items) numbers.push_back(expect(item, Kind::kInteger, what).number);
    return numbers;
  }

  std::vector<PickledTensor> collect(const Value& root) const {
    if (root.kind != Kind::kDict) fail(fmt::format("expected a dict of tensors, found {}", kind_name(root.kind)));
    std::vector<PickledTensor> tensors;
    for (size_t i = 0; i < root.items.size(); i += 2) {
      PickledTensor tensor;
      tensor.name = expect(root.items[i], Kind::kString, "a key of the dict").text;
      const std::string name = shown(tensor.name);
      const Value& made = expect(root.items[i + 1], Kind::kTensor, name);
      const Value& storage = values_[made.items[0]];
      tensor.storage_key = storage.text;
      tensor.dtype = kDtypes[static_cast<size_t>(storage.number)].type;
      tensor.storage_numel = values_[storage.items[0]].number;
      tensor.offset = values_[made.items[1]].number;
      tensor.shape = integers(made.items[2], name + ": shape");
      tensor.strides = integers(made.items[3], name + ": strides");
      tensors.push_back(std::move(tensor));
    }
    return tensors;
  }

  std::string_view pickle_;
  const std::string& file_;
  size_t at_ = 0;
  std::vector<Value> values_;
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::unordered_map<uint32_t, Ref> memo_;
};

}  // namespace

std::vector<PickledTensor> read_tensor_pickle(std::string_view pickle, const std::string& file) {
  return Machine(pickle, file).run();
}

}  // namespace strobe::weights
