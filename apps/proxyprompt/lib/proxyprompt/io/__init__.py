"""Files: images, labels, DICOM, voxel grids, names of structures, and the cache. Knows no model and no server."""
