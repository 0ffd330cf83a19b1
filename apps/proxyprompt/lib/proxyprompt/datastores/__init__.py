"""MONAI Label's datastores: a folder of studies, a DICOMweb archive, and what is noted of each study."""
