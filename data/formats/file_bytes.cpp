#include "data/formats/file_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <vector>

namespace mtcki::data {

namespace {

// Closes what it holds.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

int open_for_reading(const std::string& path) {
  int fd;
  do {
    // Non-blocking: opening a named pipe without a writer would wait for ever.
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) throw DataError(str("\"", path, "\": cannot be read: ", std::strerror(errno)));
  return fd;
}

// Of a regular file; anything else may never end.
size_t size_of_regular(const Descriptor& file, const std::string& path) {
  struct stat info {};
  if (::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode))
    throw DataError(str("\"", path, "\": expected a file, found ",
                        S_ISDIR(info.st_mode) ? "a folder" : "not a regular file"));
  return static_cast<size_t>(info.st_size);
}

bool starts_with(Bytes b, std::string_view magic) { return as_text(b).starts_with(magic); }

bool starts_like_html(Bytes b) {
  std::string head(as_text(b.first(std::min<size_t>(b.size(), 256))));
  std::transform(head.begin(), head.end(), head.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return false;
  const std::string_view text = std::string_view(head).substr(first);
  return text.starts_with("<!doctype html") || text.starts_with("<html");
}

}  // namespace

void throw_data_error(const std::string& path, int64_t offset, const std::string& expected,
                      const std::string& found, const std::string& next) {
  std::string text = str("\"", path, "\": ");
  if (offset >= 0) text += str("at byte ", offset, ": ");
  text += str("expected ", expected, ", found ", found);
  if (!next.empty()) text += "; " + next;
  throw DataError(text);
}

std::string recognise(Bytes b) {
  using namespace std::string_view_literals;
  if (b.empty()) return "an empty file (an interrupted download? fetch it again)";
  // Before the magic numbers: a header length of 640 reads as the start of a pickle.
  if (b.size() > 9 && b[8] == '{') {
    uint64_t n = 0;
    for (size_t i = 8; i-- > 0;) n = n << 8 | b[i];
    if (n >= 2 && n <= 100'000'000) return "a safetensors file";
  }
  if (starts_with(b, "version https://git-lfs"))
    return "a Git LFS pointer, not the file itself (run \"git lfs pull\" in its repository)";
  if (starts_like_html(b))
    return "an HTML page (the server sent a web page instead of the file; download it again)";
  if (starts_with(b, "PK\x03\x04"sv) || starts_with(b, "PK\x05\x06"sv))
    return "a ZIP archive (a PyTorch .pth or a NumPy .npz?)";
  if (starts_with(b, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"sv))
    return "a PyTorch file of the old stream form";
  if (b.size() > 1 && b[0] == 0x80 && b[1] >= 2 && b[1] <= 5) return "a Python pickle";
  if (starts_with(b, "\x89HDF"sv)) return "an HDF5 file (Keras?)";
  if (starts_with(b, "\x1f\x8b"sv)) return "a gzip file (unpack it)";
  if (starts_with(b,
                  "\xfd"
                  "7zXZ"sv))
    return "an xz file (unpack it with \"xz -d\")";
  if (starts_with(b, "BZh"sv)) return "a bzip2 file";
  if (starts_with(b, "\x93NUMPY"sv)) return "a NumPy .npy file";
  if (starts_with(b, "\x89PNG"sv)) return "a PNG image";
  if (starts_with(b, "\xff\xd8\xff"sv)) return "a JPEG image";
  if (starts_with(b, "GIF8"sv)) return "a GIF image (save it as PNG)";
  if (starts_with(b, "RIFF"sv) && b.size() > 12 && as_text(b.subspan(8, 4)) == "WEBP")
    return "a WebP image (save it as PNG or JPEG)";
  if (starts_with(b, "II*\0"sv) || starts_with(b, "MM\0*"sv))
    return "a TIFF image (save it as PNG)";
  if (b.size() > 12 && as_text(b.subspan(4, 4)) == "ftyp")
    return "an AVIF or HEIC image, or a film (save it as PNG)";
  if (starts_with(b, "BM"sv) && b.size() > 10 && b[6] == 0 && b[7] == 0 && b[8] == 0 && b[9] == 0)
    return "a BMP image (save it as PNG)";
  if (b.size() > 2 && b[0] == 'P' && b[1] >= '1' && b[1] <= '6' && std::isspace(b[2]))
    return "a PPM image (save it as PNG)";
  if (b.size() > 262 && as_text(b.subspan(257, 5)) == "ustar") return "a tar archive (unpack it)";
  if (starts_with(b, "GGUF"sv)) return "a GGUF file (language models)";
  if (b.size() > 8 && as_text(b.subspan(4, 4)) == "TFL3")
    return "a TensorFlow Lite file (python -m tf2onnx.convert --tflite makes an ONNX file)";
  return "";
}

std::string describe_content(Bytes content) {
  const std::string kind = recognise(content);
  if (!kind.empty()) return kind;
  // Its first field is the version, its second the name of the exporter.
  if (content.size() > 4 && content[0] == 8 && content[1] > 2 && content[1] < 20 &&
      content[2] == 0x12)
    return "an ONNX model, it seems (its name must end in .onnx)";
  const std::string_view head = as_text(content.first(std::min<size_t>(content.size(), 60)));
  if (std::all_of(head.begin(), head.end(),
                  [](unsigned char c) { return c < 128 && (c >= 32 || std::isspace(c)); }))
    return str("a text that begins \"", head.substr(0, head.find_first_of("\r\n")), "\"");
  std::string hex;
  for (const uint8_t byte : content.first(std::min<size_t>(content.size(), 8))) {
    char buffer[4];
    std::snprintf(buffer, sizeof buffer, "%02x ", byte);
    hex += buffer;
  }
  if (!hex.empty()) hex.pop_back();
  return str(content.size(), " bytes that begin with ", hex);
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Descriptor file(open_for_reading(path));
  const size_t size = size_of_regular(file, path);
  if (size == 0) return;
  void* p = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (p == MAP_FAILED)
    throw DataError(str("\"", path, "\": cannot be mapped: ", std::strerror(errno)));
  bytes_ = {static_cast<const uint8_t*>(p), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

void read_in_pieces(const std::string& path, const std::function<void(const uint8_t*, size_t)>& f) {
  const Descriptor file(open_for_reading(path));
  size_of_regular(file, path);
  std::vector<uint8_t> buffer(size_t{1} << 20);
  while (true) {
    const ssize_t n = ::read(file.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw DataError(str("\"", path, "\": cannot be read: ", std::strerror(errno)));
    if (n == 0) break;
    f(buffer.data(), static_cast<size_t>(n));
  }
}

std::string read_text(const std::string& path, uint64_t most) {
  std::string text;
  read_in_pieces(path, [&](const uint8_t* p, size_t n) {
    if (text.size() + n > most)
      throw DataError(str("\"", path, "\": expected at most ", most, " bytes, found more"));
    text.append(reinterpret_cast<const char*>(p), n);
  });
  return text;
}

bool file_exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

bool checked_multiply(int64_t a, int64_t b, int64_t* product) {
  return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, product);
}

void ByteReader::seek(uint64_t position, const char* what) {
  if (position > content_.size())
    fail(str(what, " at byte ", position), str("only ", content_.size(), " bytes"),
         "the file is truncated or damaged");
  at_ = static_cast<size_t>(position);
}

Bytes ByteReader::take(uint64_t n, const char* what) {
  if (n > left())
    fail(str(n, " bytes of ", what), str(left(), " bytes before the end"),
         "the file is truncated or damaged");
  const Bytes out = content_.subspan(at_, static_cast<size_t>(n));
  at_ += static_cast<size_t>(n);
  return out;
}

std::string_view ByteReader::line(const char* what) {
  const std::string_view rest = as_text(content_.subspan(at_));
  const size_t end = rest.find('\n');
  if (end == std::string_view::npos) fail(str(what, " ended by a newline"), "the end of the file");
  at_ += end + 1;
  return rest.substr(0, end);
}

}  // namespace mtcki::data
