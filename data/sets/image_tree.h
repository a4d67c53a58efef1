// Folders of image files: which of them are classes, which files are images, and decoding all of
// them into one set. What both folder sets (imagefolder, tiny-imagenet) share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/sets/image_folder.h"

namespace mtcki::data {

// Walks folders in sorted order and counts what it leaves out: hidden entries (.DS_Store, ._x.png,
// .ipynb_checkpoints, __MACOSX, @eaDir, Thumbs.db, desktop.ini), which are no images whatever they
// hold, and texts (.txt .csv .json ...). Everything else below a class counts as an image: it is
// read or refused. Links to folders are followed. Folders nested deeper than 32 are a DataError.
class ImageTree {
 public:
  // texts_belong: they are part of the set and need no word.
  explicit ImageTree(bool texts_belong = false) : texts_belong_(texts_belong) {}
  std::vector<std::string> classes(const std::string& dir);  // names of the visible sub-folders
  std::vector<std::string> images(const std::string& dir);   // paths, recursively
  // "left out: 3 hidden (.DS_Store, ...), 1 text (notes.txt)"; "" when nothing was.
  std::string note() const;

 private:
  struct LeftOut {
    int64_t count = 0;
    std::string first;
    void add(const std::string& name);
  };
  void collect(const std::string& dir, int depth, std::vector<std::string>* out);

  bool texts_belong_;
  LeftOut hidden_, texts_, beside_;
};

struct Sample {
  std::string path;
  int64_t label = 0;
};

// Every k-th of the samples so that `limit` remain; the classes keep their shares.
void thin(std::vector<Sample>* samples, int64_t limit);

// Decodes all into set->images and set->labels. Without options.size the size of the first image
// counts for all. Up to options.skip_bad files that cannot be read are left out, named in
// set->note; the first one beyond that is a DataError.
void decode_all(const std::vector<Sample>& samples, const FolderOptions& options, ImageSet* set);

// One more sentence of what was done on loading.
void add_note(ImageSet* set, const std::string& text);

}  // namespace mtcki::data
